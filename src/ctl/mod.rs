//! Room `ctl`.
