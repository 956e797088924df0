//! sd_notify, upwards.
