//! Fills the table of costs in `docs/isolation.md`.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/isolation.md");
/// What stands between these is written here.
const BEGIN: &str = "<!-- costs: begin -->\n";
const END: &str = "<!-- costs: end -->\n";

/// From a record of `ketch bench --format json`, or from a run of the four levels.
pub(crate) fn fill(ketch: &Path, record: Option<&str>) -> anyhow::Result<()> {
    let mut command = Command::new(ketch);
    match record {
        Some(record) => command.args(["bench", "show", record]),
        None => command.args(["bench", "--peers", "none"]),
    };
    let output = command
        .args(["--format", "markdown"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot run ketch")?;
    if !output.status.success() {
        bail!("`ketch bench` failed ({})", output.status);
    }
    let table = String::from_utf8(output.stdout).context("the table is no text")?;
    let page = std::fs::read_to_string(PAGE).context("cannot read the page")?;
    let page = replaced(&page, &table).context("the page has no place for the table")?;
    File::create(PAGE)
        .and_then(|mut file| file.write_all(page.as_bytes()))
        .context("cannot write the page")
}

fn replaced(page: &str, table: &str) -> Option<String> {
    let (head, rest) = page.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}\n{table}\n{END}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_gets_the_new_table_in_place_of_the_old() {
        let page = format!("before\n{BEGIN}\nold\n\n{END}after\n");

        let new = replaced(&page, "| new |\n").unwrap();

        assert_eq!(new, format!("before\n{BEGIN}\n| new |\n\n{END}after\n"));
        assert_eq!(replaced("before", "| new |\n"), None);
    }

    #[test]
    fn the_real_page_has_a_place_for_the_table() {
        let page = std::fs::read_to_string(PAGE).unwrap();

        assert!(replaced(&page, "").is_some());
    }
}
