"""The machine: its devices, disks, processes and signals."""
