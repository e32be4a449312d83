//! The stat cache of a context: what each file hashed to, so that a build reads only what has changed.
//!
//! A hash is believed as long as device, inode, size and both times are what they were. The change time
//! (`st_ctime`) cannot be set by a program: an edit that keeps size and modification time moves it. What
//! changed so shortly before it was hashed that a second change could have the same time is not
//! remembered.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use image::Digest;
use sha2::{Digest as _, Sha256};
use sys::durable::{self, Durability};

use crate::tree::Stamp;

/// How old a change must be when its file is hashed: many ticks of the clock that file times are of.
const SETTLED: i128 = 100_000_000;

/// The same for file systems that keep whole seconds, or two of them.
const SETTLED_COARSE: i128 = 3_000_000_000;

/// The first line of the file. Other versions are not read.
const HEADER: &str = "ketch context stamps 1";

/// The hashes of one context.
#[derive(Debug)]
pub(crate) struct Stamps {
    path: PathBuf,
    known: HashMap<Vec<u8>, (Stamp, Digest)>,
    /// What was learnt besides.
    new: Mutex<HashMap<Vec<u8>, (Stamp, Digest)>>,
}

impl Stamps {
    /// The cache of the context at `context`, below `dir`.
    pub(crate) fn open(dir: &Path, context: &Path) -> Self {
        let name = Digest::of(context.as_os_str().as_bytes()).hex();
        let path = dir.join(name);
        let known = fs::read(&path)
            .ok()
            .and_then(|bytes| parse(&bytes))
            .unwrap_or_default();
        Self {
            path,
            known,
            new: Mutex::default(),
        }
    }

    /// What a file's content hashes to.
    pub(crate) fn hash(
        &self,
        path: &[u8],
        stamp: &Stamp,
        open: impl FnOnce() -> io::Result<fs::File>,
    ) -> io::Result<Digest> {
        if let Some((known, digest)) = self.known.get(path)
            && known == stamp
        {
            return Ok(*digest);
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_nanos());
        let now = i128::try_from(now).unwrap_or(0);
        let digest = hash(open()?)?;
        let margin = match stamp.ctime % 1_000_000_000 {
            0 => SETTLED_COARSE,
            _ => SETTLED,
        };
        if now - stamp.ctime > margin {
            self.keep(path, *stamp, digest);
        }
        Ok(digest)
    }

    fn keep(&self, path: &[u8], stamp: Stamp, digest: Digest) {
        let mut new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        new.insert(path.to_vec(), (stamp, digest));
    }

    /// Writes down what was learnt.
    pub(crate) fn save(&self) -> io::Result<()> {
        let new = self.new.lock().unwrap_or_else(PoisonError::into_inner);
        if new.is_empty() {
            return Ok(());
        }
        let mut text = format!("{HEADER}\n").into_bytes();
        // What another target of the same context has stays.
        let old = self
            .known
            .iter()
            .filter(|(path, _)| !new.contains_key(*path));
        for (path, (stamp, digest)) in old.chain(new.iter()) {
            let mut line = String::new();
            let Stamp {
                dev,
                ino,
                size,
                mtime,
                ctime,
            } = stamp;
            // Writing to a string does not fail.
            let _done = write!(line, "{} {dev} {ino} {size} {mtime} {ctime} ", digest.hex());
            text.extend_from_slice(line.as_bytes());
            text.extend_from_slice(path);
            text.push(0);
        }
        if let Some(dir) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        durable::replace_file(&self.path, &text, Durability::Atomic)
    }
}

fn parse(bytes: &[u8]) -> Option<HashMap<Vec<u8>, (Stamp, Digest)>> {
    let rest = bytes.strip_prefix(HEADER.as_bytes())?.strip_prefix(b"\n")?;
    let mut known = HashMap::new();
    for line in rest
        .split(|byte| *byte == 0)
        .filter(|line| !line.is_empty())
    {
        let mut fields = line.splitn(7, |byte| *byte == b' ');
        let mut next = || std::str::from_utf8(fields.next()?).ok();
        let digest = Digest::parse_hex(next()?).ok()?;
        let stamp = Stamp {
            dev: next()?.parse().ok()?,
            ino: next()?.parse().ok()?,
            size: next()?.parse().ok()?,
            mtime: next()?.parse().ok()?,
            ctime: next()?.parse().ok()?,
        };
        known.insert(fields.next()?.to_vec(), (stamp, digest));
    }
    Some(known)
}

/// The digest of a file's content.
pub(crate) fn hash(mut file: impl Read) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Digest::from_hasher(hasher)),
            Ok(count) => hasher.update(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ignore::Ignore;
    use crate::tree::{HostTree, Tree};
    use std::io::Write as _;
    use std::time::Duration;

    #[test]
    fn edit_that_keeps_size_and_time_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let context = dir.path().join("context");
        fs::create_dir(&context).unwrap();
        let path = context.join("file");
        let long_ago = SystemTime::now() - Duration::from_secs(10_000);
        let write = |text: &str| {
            let mut file = fs::File::create(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.set_modified(long_ago).unwrap();
        };
        let stamp = || {
            let tree = Tree::Host(HostTree::open(&context, Ignore::default()).unwrap());
            tree.node(b"file").unwrap().unwrap().stamp.unwrap()
        };
        write("one");
        let store = dir.path().join("stamps");
        let cache = Stamps::open(&store, &context);
        let first = stamp();
        let open = || fs::File::open(&path);
        assert_eq!(
            cache.hash(b"file", &first, open).unwrap(),
            Digest::of(b"one")
        );
        cache.save().unwrap();
        // It changed a moment ago: it is not remembered, whatever comes in the same tick.
        let again = Stamps::open(&store, &context);
        assert!(again.known.is_empty());
        // Pretend that it had settled, which is the case that is remembered.
        again.keep(b"file", first, Digest::of(b"one"));
        again.save().unwrap();
        let again = Stamps::open(&store, &context);
        let unread = || -> io::Result<fs::File> { panic!("it is known") };
        assert_eq!(
            again.hash(b"file", &first, unread).unwrap(),
            Digest::of(b"one")
        );
        write("two");
        let second = stamp();
        assert_eq!((first.size, first.mtime), (second.size, second.mtime));
        assert_ne!(first.ctime, second.ctime);
        assert_eq!(
            again.hash(b"file", &second, open).unwrap(),
            Digest::of(b"two")
        );
    }
}
