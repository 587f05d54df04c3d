"""What this machine has: devices, disks, processes, signals."""
