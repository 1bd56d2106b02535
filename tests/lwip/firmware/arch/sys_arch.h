// Empty: lwIP runs without threads, NO_SYS.
