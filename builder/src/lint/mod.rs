//! Lint rules: what is allowed and probably not meant. The names are those that users know from other
//! builders and skip with `# check=skip=…`.

mod finding;
mod origins;
mod text;
mod values;

pub use finding::Finding;
pub(crate) use finding::is_skipped;
pub use text::{is_secret_name, lint, lint_with};
pub use values::{EnvOf, Surroundings};
