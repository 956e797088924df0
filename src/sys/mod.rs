//! TOUCHES the kernel: the only room with unsafe code, libc and raw system calls. It knows nothing of
//! services; every function here is a thin, safe wrapper whose SAFETY comment says why it is sound.

pub mod clock;
pub mod folder;
pub mod peer;
pub mod pipe;
pub mod poller;
pub mod timer;
