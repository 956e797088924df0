//! Reading what was kept: bytes in order over rotated and compressed files, lines with their times, chosen by time
//! and pattern, and several logs as one. Takes no part in writing: it opens files for reading and changes nothing.
//! Memory is bounded whatever the size of files and lines.

pub(super) mod files;
pub(super) mod lines;
mod log;
mod own;
mod reader;
mod tail;
#[cfg(test)]
mod tests;
pub(super) mod times;
mod view;
pub mod when;

pub use files::Place;
pub use lines::Line;
pub use log::{Query, pattern};
pub use reader::{From, Reader};
pub use view::{Next, View};
