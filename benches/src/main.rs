//! Whole-process measurements of ketch and of what it is compared with, interleaved.
//!
//! `cargo run --release -p benches` measures starts (`start --trace-steps` shows where the time goes), `cargo run --release -p benches links` the ways
//! to link the small executables; `peers` is `ketch bench`; `page [RECORD]` fills the table in `docs/isolation.md` with it; `build`, `images`, `life`, `network`, `oci` and `wasm` are the scripts
//! beside, which take further words and most of which need root. Nothing is installed; a peer that is absent is named and left out.
#![forbid(unsafe_code)]

mod links;
mod measure;
mod page;
mod peers;
mod scripts;
mod start;
mod steps;

use std::path::PathBuf;

use anyhow::bail;

fn main() -> anyhow::Result<()> {
    let ketch = ketch()?;
    match std::env::args().nth(1).as_deref() {
        None => start::run(&ketch),
        Some("start") => match std::env::args().nth(2).as_deref() {
            None => start::run(&ketch),
            Some("--trace-steps") => start::steps(&ketch),
            Some(other) => bail!("`{other}` is no option of `start`: --trace-steps"),
        },
        Some("links") => links::run(&ketch),
        Some("peers") => {
            let mut bench = std::process::Command::new(&ketch);
            let status = bench.arg("bench").args(std::env::args().skip(2)).status()?;
            match status.success() {
                true => Ok(()),
                false => bail!("`ketch bench` failed"),
            }
        }
        Some("page") => page::fill(&ketch, std::env::args().nth(2).as_deref()),
        Some(other) => {
            let words = std::env::args().skip(2).collect();
            scripts::run(other, &ketch, words).unwrap_or_else(|| {
                let scripts: Vec<&str> = scripts::names().collect();
                let scripts = scripts.join(", ");
                bail!("`{other}` is no measurement: start, links, peers, page, {scripts}")
            })
        }
    }
}

/// The release build that stands beside this program.
fn ketch() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let ketch = own.with_file_name("ketch");
    if !ketch.exists() {
        bail!(
            "cannot find `{}`: run `cargo build --release` first",
            ketch.display()
        );
    }
    Ok(ketch)
}
