"""The kernel's interfaces, one a file, by the kernel's names. They raise OSError and know no Topology."""
