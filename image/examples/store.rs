//! The store without the rest of ketch: `load -i FILE`, `pull -q REF`, `push -q REF`, `rmi NAME`, for measurements
//! (`benches/images.py --ketch target/release/examples/store`). Directories come from `KETCH_ROOT`
//! and `KETCH_RUN`.
#![expect(
    clippy::disallowed_methods,
    reason = "an example is its own front end, and reads the environment itself"
)]

use std::error::Error;
use std::fs::File;
use std::path::PathBuf;

use image::{Force, LayerForm, PlatformChoice, Reference, RegistryOptions, Store, UnpackMode};
use state::Layout;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let root = directory("KETCH_ROOT").ok_or("KETCH_ROOT is not set")?;
    let run = directory("KETCH_RUN").ok_or("KETCH_RUN is not set")?;
    let layout = Layout::open(root, run)?;
    let form = match std::env::var("KETCH_LAYERS").as_deref() {
        Ok("erofs") => LayerForm::Erofs,
        Ok("directory") => LayerForm::Directory,
        _ => LayerForm::best(&layout),
    };
    let store = Store::open(&layout, UnpackMode::default())?.with_layer_form(form);
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["load", "-i", path] => {
            store.load(File::open(path)?, None, &())?;
        }
        ["pull", "-q", name] => {
            let (name, options) = (Reference::parse(name)?, RegistryOptions::default());
            store.pull(&name, &PlatformChoice::Default, &options, &())?;
        }
        ["push", "-q", name] => {
            let (target, options) = (Reference::parse(name)?, RegistryOptions::default());
            store.push(name, &target, None, &options, &())?;
        }
        ["rmi", name] => {
            store.remove(name, Force::No, &|_| None)?;
        }
        ["empty-trash"] => store.empty_trash()?,
        _ => {
            return Err(
                "usage: store load -i FILE | pull -q NAME | push -q NAME | rmi NAME".into(),
            );
        }
    }
    Ok(())
}
