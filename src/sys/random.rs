//! Random bytes from the kernel.

use super::{Errno, Result};

/// 16 random bytes, as for an identifier.
pub fn bytes16() -> Result<[u8; 16]> {
    let mut out = [0u8; 16];
    // SAFETY: the buffer is valid for its length. Up to 256 bytes come whole once the pool is initialised.
    let n = Errno::result(unsafe { libc::getrandom(out.as_mut_ptr().cast(), out.len(), 0) })?;
    if n as usize == out.len() { Ok(out) } else { Err(Errno::EAGAIN) }
}
