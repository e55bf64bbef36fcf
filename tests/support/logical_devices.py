"""`python -m femur3d.train` on one CPU that TensorFlow or JAX is made to take for several devices.

python -m tests.support.logical_devices 2 --experiment …
"""

import os
import runpy
import sys

from femur3d.cli import quiet_imports

if __name__ == "__main__":
    count = int(sys.argv.pop(1))
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={count}"
    if os.environ.get("KERAS_BACKEND") != "jax":
        with quiet_imports():
            import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    runpy.run_module("femur3d.train", run_name="__main__", alter_sys=True)
