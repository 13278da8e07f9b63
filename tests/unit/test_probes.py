"""The probes parse the real output of many kinds of machines, and cost little on one without accelerators."""

import logging
import sys
from types import SimpleNamespace

import pytest

from mesh.messages import Accelerator
from node.probes import accelerator
from node.probes.accelerator import gfx_name, parse_apple, parse_nvidia_smi, probe_accelerators
from node.probes.machine import (
    cgroup_cores,
    cgroup_memory_bytes,
    parse_bytes_limit,
    parse_cgroups,
    parse_cpu_max,
    parse_cpuinfo,
    parse_sysctl,
    probe_machine,
    usable_cores,
)

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
flags\t\t: fpu vme sse4_2 avx avx2 avx512f amx_tile sha_ni hypervisor
processor\t: 1
model name\t: another
"""
GRAVITON = """processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 asimddp sve bf16
CPU implementer\t: 0x41
CPU architecture: 8
CPU part\t: 0xd40
"""
PI = "processor: 0\nFeatures: half neon vfpv4\nCPU implementer: 0x99\nCPU part: 0x1\nHardware\t: BCM2835\n"
MAC_ARM = """hw.memsize: 17179869184
hw.optional.neon: 1
hw.optional.arm.FEAT_SHA256: 1
hw.optional.arm.FEAT_BF16: 0
machdep.cpu.brand_string: Apple M2 Pro
"""
MAC_INTEL = """machdep.cpu.brand_string: Intel(R) Core(TM) i7-9750H CPU @ 2.60GHz
machdep.cpu.features: FPU SSE4.1 SSE4.2 AES AVX1.0 FMA
machdep.cpu.leaf7_features: BMI2 AVX2
"""


def test_cpuinfo():
    intel = ("amx_tile", "avx", "avx2", "avx512f", "sha_ni", "sse4_2")
    assert parse_cpuinfo(X86) == ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", intel)
    model, features = parse_cpuinfo(GRAVITON)
    assert model == "ARM Neoverse V1" and {"asimd", "sha2", "sve"} <= set(features)
    assert parse_cpuinfo(PI) == ("BCM2835", ("neon",))
    assert parse_cpuinfo("") == ("", ())


def test_sysctl():
    assert parse_sysctl(MAC_ARM) == ("Apple M2 Pro", ("neon", "sha2"))
    model, features = parse_sysctl(MAC_INTEL)
    assert "i7-9750H" in model and features == ("aes", "avx", "avx2", "bmi2", "fma", "sse4_1", "sse4_2")


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("max 100000", None),
        ("150000 100000", 1.5),
        ("50000 100000\n", 0.5),
        ("", None),
        ("-1 100000", None),
        ("x y", None),
    ],
)
def test_cpu_max(text, cores):
    assert parse_cpu_max(text) == cores


def test_usable_cores():
    assert usable_cores(8, None) == 8
    assert usable_cores(8, 2.5) == 2
    assert usable_cores(8, 0.5) == 1
    assert usable_cores(2, 16.0) == 2


def test_unlimited_is_none():
    assert parse_bytes_limit("max\n") is parse_bytes_limit("9223372036854771712") is parse_bytes_limit("") is None
    assert parse_bytes_limit("536870912\n") == 512 << 20


def _tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_cgroup_v2_counts_the_limits_of_parents_too(tmp_path):
    _tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/system.slice/queztl.service\n",
            "sys/fs/cgroup/system.slice/cpu.max": "200000 100000",
            "sys/fs/cgroup/system.slice/queztl.service/cpu.max": "300000 100000",
            "sys/fs/cgroup/system.slice/queztl.service/memory.max": "1073741824",
            "sys/fs/cgroup/system.slice/memory.max": "max",
        },
    )
    assert cgroup_cores(tmp_path) == 2.0
    assert cgroup_memory_bytes(tmp_path) == 1 << 30


def test_cgroup_v1_as_docker_shows_it(tmp_path):
    text = "12:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/\n"
    _tree(
        tmp_path,
        {
            "proc/self/cgroup": text,
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "268435456",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "150000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        },
    )
    assert parse_cgroups(text) == {"memory": "/docker/abc", "cpu,cpuacct": "/docker/abc", "": "/"}
    assert cgroup_cores(tmp_path) == 1.5
    assert cgroup_memory_bytes(tmp_path) == 256 << 20


def test_without_cgroups_there_are_no_limits(tmp_path):
    assert cgroup_cores(tmp_path) is cgroup_memory_bytes(tmp_path) is None


def test_this_machine(tmp_path):
    machine = probe_machine(tmp_path)
    assert machine.os and machine.arch and machine.cpu_model
    assert machine.cores >= 1 and machine.cores_physical >= 1
    assert machine.memory_bytes > 1 << 27 and machine.disk_free_bytes > 0


# --- accelerators ----------------------------------------------------------------------------------


def test_nvidia_smi_lines():
    text = "NVIDIA H200, 143771, 570.124.06\nNVIDIA GB10, [N/A], 580.95\nrubbish\n"
    assert parse_nvidia_smi(text) == [
        Accelerator("cuda", "NVIDIA H200", 143771 << 20, "570.124.06"),
        Accelerator("cuda", "NVIDIA GB10", 0, "580.95"),
    ]


def test_apple_and_gfx_names():
    gpu, engine = parse_apple("Apple M2 Pro\n17179869184\n", "15.1")
    assert (gpu.type, gpu.memory_bytes, engine.type) == ("mps", 1 << 34, "ane")
    assert [gfx_name(v) for v in (90010, 90402, 110000, 100300)] == ["gfx90a", "gfx942", "gfx1100", "gfx1030"]


def test_devices_in_sysfs(tmp_path):
    kfd = "sys/class/kfd/kfd/topology/nodes"
    _tree(
        tmp_path,
        {
            f"{kfd}/0/properties": "cpu_cores_count 64\nsimd_count 0\n",
            f"{kfd}/1/properties": "simd_count 440\ngfx_target_version 90010\n",
            f"{kfd}/1/name": "aldebaran\n",
            f"{kfd}/1/mem_banks/0/properties": "heap_type 1\nsize_in_bytes 68702699520\n",
            "sys/module/amdgpu/version": "6.8.5\n",
            "sys/class/accel/accel0/device/vendor": "0x8086\n",
            "sys/class/accel/accel1/device/vendor": "0x1ae0\n",
            "sys/class/accel/accel2/device/vendor": "0xffff\n",
            "sys/class/drm/renderD128/device/vendor": "0x8086\n",
            "sys/class/drm/renderD129/device/vendor": "0x10de\n",
            "dev/apex_0": "",
        },
    )
    found = probe_accelerators(tmp_path, {})
    assert found[0] == Accelerator("rocm", "aldebaran (gfx90a)", 68702699520, "6.8.5")
    assert sorted(device.type for device in found) == ["edgetpu", "npu", "rocm", "tpu", "xpu"]


def test_cloud_tpu_by_its_environment(tmp_path):
    _tree(tmp_path, {"dev/vfio/0": "", "dev/vfio/1": "", "dev/vfio/vfio": ""})
    found = probe_accelerators(tmp_path, {"TPU_ACCELERATOR_TYPE": "v5litepod-4"})
    assert [device.name for device in found] == ["Google TPU v5litepod-4"] * 2


def test_a_probe_that_fails_is_logged_and_the_others_go_on(tmp_path, monkeypatch, caplog):
    """A driver is loaded, but neither the Python binding nor nvidia-smi is installed."""
    _tree(tmp_path, {"dev/nvidiactl": "", "dev/apex_0": ""})
    monkeypatch.setattr(accelerator.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        found = probe_accelerators(tmp_path, {})
    assert [device.type for device in found] == ["edgetpu"]
    assert "NVIDIA probe failed" in caplog.text and "nvidia-smi" in caplog.text


def test_nvml_through_its_binding(tmp_path, monkeypatch):
    _tree(tmp_path, {"dev/nvidiactl": ""})
    ended = []
    binding = SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: ended.append(1),
        nvmlSystemGetDriverVersion=lambda: b"570.1",
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: f"GPU {handle}",
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=1 << 30),
    )
    monkeypatch.setattr(accelerator.importlib.util, "find_spec", lambda name: binding)
    monkeypatch.setitem(sys.modules, "pynvml", binding)
    found = probe_accelerators(tmp_path, {})
    assert found == tuple(Accelerator("cuda", f"GPU {index}", 1 << 30, "570.1") for index in (0, 1))
    assert ended == [1]
