//! Images on a real file system: layers, archives, names.

mod archives;
mod host;
mod names;
mod unpack;
