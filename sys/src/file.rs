//! What every system can do with an open file, and each calls otherwise.

#[cfg(unix)]
use std::fs;
use std::fs::File;
use std::io;
use std::path::Path;

/// Reads from `offset` on, at most what `buffer` holds; 0 at the end. Where the file's own position
/// is moved by it nobody may rely on that one.
///
/// # Errors
/// As `pread(2)`.
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::read_at(file, buffer, offset)
    }
    #[cfg(windows)]
    {
        std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
    }
}

/// Reads exactly what `buffer` holds, from `offset` on.
///
/// # Errors
/// `UnexpectedEof` when there is less, and as [`read_at`].
pub fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match read_at(file, rest, offset + filled as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of `bytes` at `offset`.
///
/// # Errors
/// As `pwrite(2)`.
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        let at = offset + written as u64;
        #[cfg(unix)]
        let count = std::os::unix::fs::FileExt::write_at(file, rest, at);
        #[cfg(windows)]
        let count = std::os::windows::fs::FileExt::seek_write(file, rest, at);
        match count {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Whether `path` leads to this open file; false when it leads nowhere.
///
/// # Errors
/// As `stat(2)`.
pub fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    #[cfg(unix)]
    let there = fs::symlink_metadata(path).map(|meta| identity(&meta));
    #[cfg(windows)]
    let there = File::open(path).and_then(|file| identity(&file));
    #[cfg(unix)]
    let ours = identity(&file.metadata()?);
    #[cfg(windows)]
    let ours = identity(file)?;
    match there {
        Ok(there) => Ok(there == ours),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(unix)]
fn identity(meta: &fs::Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (meta.dev(), meta.ino())
}

#[cfg(windows)]
fn identity(file: &File) -> io::Result<(u32, u32, u32)> {
    use std::os::windows::io::AsRawHandle;

    use windows_sys::Win32::Storage::FileSystem::{
        BY_HANDLE_FILE_INFORMATION, GetFileInformationByHandle,
    };
    let mut facts = BY_HANDLE_FILE_INFORMATION::default();
    // SAFETY: the handle is open, and the call writes one such structure, which lives over it.
    let done = unsafe { GetFileInformationByHandle(file.as_raw_handle(), &raw mut facts) };
    if done == 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((
        facts.dwVolumeSerialNumber,
        facts.nFileIndexHigh,
        facts.nFileIndexLow,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn read_exact_at_gives_the_middle_and_knows_the_end() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"01234").unwrap();
        write_all_at(&file, b"56789", 5).unwrap();
        let mut bytes = [0; 4];
        read_exact_at(&file, &mut bytes, 3).unwrap();
        assert_eq!(&bytes, b"3456");
        let error = read_exact_at(&file, &mut bytes, 8).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read_at(&file, &mut bytes, 10).unwrap(), 0);
    }

    #[test]
    fn is_at_tells_a_file_from_its_successor() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a"), dir.path().join("b"));
        let file = File::create(&path).unwrap();
        assert!(is_at(&file, &path).unwrap());
        fs::hard_link(&path, &other).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!is_at(&file, &path).unwrap());
        drop(File::create(&path).unwrap());
        assert!(!is_at(&file, &path).unwrap());
        assert!(is_at(&file, &other).unwrap());
    }
}
