"""What tests share: servers, disks, processes, terminals and browsers under a test's control."""
