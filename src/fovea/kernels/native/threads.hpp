#pragma once

namespace fovea {

// Calls function(context, worker) once for each worker 0 .. workers - 1, on at most that many threads.
void run_workers(int workers, void (*function)(void *, int), void *context);
void set_parallel(void *gomp_parallel);

}  // namespace fovea
