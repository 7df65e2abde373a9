"""Where compiled programs are kept."""

import os
import subprocess
import sys

SCRIPT = """
import jax
from invariance_jax import compilation_cache
compilation_cache.enable()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: x + 1)(1.0).block_until_ready()
"""


def compile_something(home, **environment):
    environ = {**os.environ, "XDG_CACHE_HOME": str(home), **environment}
    if not environment:
        environ.pop("JAX_COMPILATION_CACHE_DIR")
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, env=environ)


def test_programs_are_kept_in_the_users_cache(tmp_path):
    compile_something(tmp_path)
    assert list((tmp_path / "invariance_jax" / "compiled").iterdir())


def test_the_environment_wins(tmp_path):
    compile_something(tmp_path, JAX_COMPILATION_CACHE_DIR="")
    assert list(tmp_path.iterdir()) == []
    compile_something(tmp_path / "unused", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "other"))
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
