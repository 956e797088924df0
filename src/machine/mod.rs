//! DECIDES what happens next. Pure: no clock, no thread, no I/O; time is an argument and randomness is seeded.

pub mod event;

pub use event::{Effect, Event, Fact, Notice, NoticeKind, Outcome, ServiceId, Ticket, Time, Wish};
