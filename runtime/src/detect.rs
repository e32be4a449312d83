//! Which runtime an image gets: decided from bytes and config, never from names.
