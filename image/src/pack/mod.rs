//! From files to archives: a directory is walked by descriptor, in one order, and written as a tar
//! stream, as it is (`export`, `cp`) or as a layer (`commit`). The same files give the same bytes.

mod layer;
mod tar;
mod walk;

pub use layer::pack_layer;
pub use tar::TarWriter;
pub use walk::{Visited, names, walk, walk_tree};
