//! What options hold: files, platforms, variables, sizes.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use image::Platform;

use crate::render::Usage;
use crate::settings;

/// The file that is meant in place of an image. No image's name begins like a path; `app.wasm` is
/// one of both, and the file that exists is meant.
pub(crate) fn module_file(text: &str) -> anyhow::Result<Option<PathBuf>> {
    let is_path = ["/", "./", "../"]
        .iter()
        .any(|start| text.starts_with(start));
    let is_module = Path::new(text)
        .extension()
        .is_some_and(|extension| extension == "wasm");
    if is_path || (is_module && Path::new(text).is_file()) {
        return Ok(Some(std::path::absolute(text)?));
    }
    Ok(None)
}

/// `os/arch[/variant]`.
pub(crate) fn platform(text: &str) -> anyhow::Result<Platform> {
    let mut parts = text.split('/');
    let (os, arch) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    if !text.contains('/') && !os.is_empty() {
        // A system alone means this machine's processor, or the only one that wasm has.
        let host = Platform::host();
        let arch = if os == "linux" {
            host.architecture()
        } else {
            "wasm"
        };
        return Ok(Platform::new(os, arch, None));
    }
    if os.is_empty() || arch.is_empty() {
        return Err(Usage(format!(
            "cannot use platform `{text}`: it is os/arch[/variant]"
        ))
        .into());
    }
    Ok(Platform::new(os, arch, parts.next()))
}

/// The lines of files that hold one setting a line; blank lines and those that begin with # are
/// left out. With where each stands.
pub(crate) fn setting_lines(
    what: &str,
    files: &[PathBuf],
) -> anyhow::Result<Vec<(String, String)>> {
    let mut lines = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the {what} file `{}`", file.display()))?;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            if !(line.is_empty() || line.starts_with('#')) {
                let place = format!("`{}` line {}", file.display(), number + 1);
                lines.push((line.to_owned(), place));
            }
        }
    }
    Ok(lines)
}

/// Files first, then flags, which are stronger.
pub(crate) fn environment(files: &[PathBuf], flags: &[String]) -> anyhow::Result<Vec<String>> {
    let mut env = Vec::new();
    for (line, place) in setting_lines("environment", files)? {
        env.extend(pair(&line, &place)?);
    }
    for flag in flags {
        env.extend(pair(flag, "--env")?);
    }
    Ok(env)
}

/// `KEY=value`, or `KEY` with this environment's value, or nothing when it has none.
fn pair(text: &str, place: &str) -> anyhow::Result<Option<String>> {
    let key = text.split('=').next().unwrap_or_default();
    if key.is_empty() || key.contains(char::is_whitespace) || text.contains('\0') {
        return Err(Usage(format!(
            "cannot use `{text}` in {place}: it is KEY=VALUE or KEY"
        ))
        .into());
    }
    if text.contains('=') {
        return Ok(Some(text.to_owned()));
    }
    Ok(settings::variable(key)?.map(|value| format!("{key}={value}")))
}

/// The size of `--memory`.
pub(crate) fn bytes(text: &str) -> anyhow::Result<i64> {
    bytes_of("--memory", text)
}

/// A size with Docker's units, powers of 1024.
pub(crate) fn bytes_of(option: &str, text: &str) -> anyhow::Result<i64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: i64 = match lower.get(digits.len()..).unwrap_or_default() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => 0,
    };
    let value = digits
        .parse::<i64>()
        .ok()
        .and_then(|number| number.checked_mul(factor));
    value.filter(|value| *value > 0).ok_or_else(|| {
        Usage(format!(
            "cannot use {option} `{text}`: it is a number with b, k, m or g"
        ))
        .into()
    })
}

/// A size in powers of 1000, as Docker shows it.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes;
    let mut rest = 0;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000 {
            let fraction = if unit == "B" || value >= 100 {
                String::new()
            } else {
                format!(".{}", rest / 100)
            };
            return format!("{value}{fraction}{unit}");
        }
        (value, rest) = (value / 1000, value % 1000);
    }
    format!("{value}TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_with_units() {
        assert_eq!(bytes("16m").unwrap(), 16 << 20);
        assert_eq!(bytes("1G").unwrap(), 1 << 30);
        for bad in ["", "m", "-1", "1x", "99999999999g"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn malformed_pair_is_refused() {
        assert!(pair("=x", "f").is_err());
        assert!(pair("A B=x", "f").is_err());
        assert_eq!(pair("A=b=c", "f").unwrap().unwrap(), "A=b=c");
    }

    #[test]
    fn path_is_a_file_and_an_absent_wasm_file_an_image() {
        assert!(module_file("./absent").unwrap().unwrap().is_absolute());
        assert!(module_file("/absent.wasm").unwrap().is_some());
        for image in ["alpine", "host:5000/a/b:1", "absent.wasm", "a/b.wasm"] {
            assert_eq!(module_file(image).unwrap(), None, "{image}");
        }
    }
}
