"""Builds the CPU kernels as an optional extension: one shared library that holds the same source for each variant of
the instruction set. Without a compiler the install succeeds and the package works without them."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOM = os.path.join("src", "fovea", "kernels", "native")
FLAGS = [
    "-O3", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math",
    "-Wno-psabi",
]  # fmt: skip
VARIANTS = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mfma", "-mprefer-vector-width=512"],
}
X86 = platform.machine().lower() in ("x86_64", "amd64")


class BuildVariants(build_ext):
    """Compiles the kernels once for each variant and links them into one library, loaded by ctypes."""

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return []

    def run(self) -> None:
        try:
            super().run()
        except Exception as error:
            self.leave(error)

    def build_extension(self, ext: Extension) -> None:
        try:
            self.compile_variants(ext)
        except Exception as error:
            self.leave(error)

    def leave(self, error: Exception) -> None:
        print(f"fovea: the native CPU kernels were not built ({error}); the other backends serve", file=sys.stderr)

    def get_outputs(self) -> list[str]:
        return [path for path in super().get_outputs() if os.path.exists(path)]

    def copy_extensions_to_source(self) -> None:
        build_py: Any = self.get_finalized_command("build_py")
        for ext in self.extensions:
            inplace, regular = self._get_inplace_equivalent(build_py, ext)  # type: ignore[attr-defined]
            if os.path.exists(regular):
                self.copy_file(regular, inplace, level=self.verbose)

    def compile_variants(self, ext: Extension) -> None:
        if self.compiler.compiler_type != "unix":
            raise OSError("they are built by GCC or Clang")
        compiler = (
            os.environ.get("CXX", "").split() or [name for name in ("g++", "c++", "clang++") if shutil.which(name)][:1]
        )
        if not compiler or not shutil.which(compiler[0]):
            raise OSError("there is no C++ compiler")
        self.compiler.set_executables(
            compiler_so=[*compiler, "-pthread"], compiler_so_cxx=[*compiler, "-pthread"], compiler_cxx=compiler
        )
        self.compiler.set_executables(
            **{
                name: [*compiler, "-pthread", *(["-dynamiclib"] if sys.platform == "darwin" else ["-shared"])]
                for name in ("linker_so", "linker_so_cxx")
            }
        )
        build = os.path.join(self.build_temp, "native")
        objects = self.compiler.compile(
            [os.path.join(ROOM, name) for name in ("api.cpp", "threads.cpp")],
            output_dir=build,
            macros=[("FOVEA_X86", "1")] if X86 else [],
            extra_postargs=FLAGS,
        )
        for name, flags in VARIANTS.items():
            if name != "baseline" and not X86:
                continue
            objects += self.compiler.compile(
                [os.path.join(ROOM, "kernels.cpp")],
                output_dir=os.path.join(build, name),
                macros=[("FOVEA_VARIANT", name), ("FOVEA_VARIANT_NAME", f'"{name}"')],
                extra_postargs=FLAGS + flags,
            )
        path = self.get_ext_fullpath(ext.name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.compiler.link_shared_object(objects, path, target_lang="c++")


setup(
    ext_modules=[
        Extension(
            "fovea.kernels.native._kernels",
            sources=[os.path.join(ROOM, "api.cpp")],
            depends=[os.path.join(ROOM, name) for name in sorted(os.listdir(ROOM)) if name.endswith(("pp", ".h"))],
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildVariants},
)
