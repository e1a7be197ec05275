// Threads of the OpenMP runtime that the process already has, so that two pools never fight for the cores; our own where
// there is none, or in a forked child, whose runtime may wait for threads that the fork left behind.
#include "threads.hpp"

#include <atomic>
#include <exception>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace fovea {
namespace {

using GompParallel = void (*)(void (*)(void *), void *, unsigned, unsigned);
std::atomic<GompParallel> gomp{nullptr};

struct Call {
    void (*function)(void *, int);
    void *context;
    std::atomic<int> next;
    int workers;
};

void enter(void *data) {
    Call *call = static_cast<Call *>(data);
    for (int worker; (worker = call->next.fetch_add(1)) < call->workers;) call->function(call->context, worker);
}

}  // namespace

void set_parallel(void *function) {
    gomp = reinterpret_cast<GompParallel>(function);
#if !defined(_WIN32)
    static const int registered = pthread_atfork(nullptr, nullptr, [] { gomp = nullptr; });
    (void)registered;
#endif
}

void run_workers(int workers, void (*function)(void *, int), void *context) {
    Call call{function, context, {0}, workers};
    if (workers <= 1) {
        enter(&call);
    } else if (GompParallel parallel = gomp) {
        parallel(enter, &call, static_cast<unsigned>(workers), 0);
    } else {
        std::vector<std::thread> threads;
        try {
            for (int i = 1; i < workers; ++i) threads.emplace_back(enter, &call);
        } catch (const std::exception &) {
            // The machine gives no more threads: those there are do the work.
        }
        enter(&call);
        for (std::thread &thread : threads) thread.join();
    }
}

}  // namespace fovea
