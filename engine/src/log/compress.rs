//! A file of a log that is complete is compressed: by a process of its own, which the container's
//! monitor starts.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

/// Puts `FILE.gz` in the place of `file`. Readers that have it open go on reading it.
///
/// # Errors
/// When it cannot be read or written; then nothing has changed.
pub fn compress_log(file: &Path) -> io::Result<()> {
    let with = |end: &str| {
        let mut name = file.as_os_str().to_os_string();
        name.push(end);
        std::path::PathBuf::from(name)
    };
    let (tmp, target) = (with(".gz.new"), with(".gz"));
    let result = write(file, &tmp).and_then(|()| sys::durable::link_over(&tmp, &target));
    sys::durable::remove_tree(&tmp)?;
    result?;
    match fs::remove_file(file) {
        // It was too old to be kept meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => sys::durable::remove_tree(&target),
        other => other,
    }
}

fn write(file: &Path, tmp: &Path) -> io::Result<()> {
    let mut from = BufReader::with_capacity(64 * 1024, File::open(file)?);
    let to = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o640)
        .open(tmp)?;
    let mut encoder = GzEncoder::new(to, Compression::default());
    io::copy(&mut from, &mut encoder)?;
    encoder.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn file_is_replaced_by_its_compressed_form() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log.1");
        File::create(&file).unwrap().write_all(b"text\n").unwrap();
        compress_log(&file).unwrap();
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
        assert_eq!(names.len(), 1);
        let mut text = String::new();
        let compressed = File::open(dir.path().join("log.1.gz")).unwrap();
        let mut decoder = flate2::read::MultiGzDecoder::new(compressed);
        decoder.read_to_string(&mut text).unwrap();
        assert_eq!(text, "text\n");
        assert!(compress_log(&file).is_err());
    }
}
