//! What tests of containers have in common: images with guest programs or a shell, and fields of
//! `inspect`.

use std::path::Path;

use crate::{BUSYBOX, Sandbox};

/// The guest programs of the repository.
const GUESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/guests/built");

impl Sandbox {
    /// Makes an image `guests` with guest programs for Linux, each in the root directory.
    ///
    /// # Panics
    /// When there is no such guest.
    pub fn guests(&self, names: &[&str]) {
        let read = |name: &&str| {
            let path = Path::new(GUESTS).join(format!("{name}.x86_64"));
            std::fs::read(path).unwrap()
        };
        let programs: Vec<Vec<u8>> = names.iter().map(read).collect();
        let files = names.iter().zip(&programs);
        let files: Vec<(&str, &[u8], u32)> = files
            .map(|(name, bytes)| (*name, bytes.as_slice(), 0o755))
            .collect();
        self.image("guests", &files, &[]);
    }

    /// Makes an image `box` with a shell that has busybox's commands ([`Need::Busybox`](crate::Need)).
    ///
    /// # Panics
    /// When there is no busybox.
    pub fn shell(&self, changes: &[&str]) {
        let busybox = std::fs::read(BUSYBOX).unwrap();
        self.image("box", &[("bin/sh", &busybox, 0o755)], changes);
    }

    /// A field that `inspect` shows of a container, such as `.State.Status`.
    ///
    /// # Panics
    /// When there is no such container.
    #[must_use]
    pub fn field(&self, container: &str, field: &str) -> String {
        let format = format!("{{{{{field}}}}}");
        let run = self.ketch(["inspect", "-f", &format, container]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.stdout.trim().to_owned()
    }

    /// Waits until a field of a container is as wanted.
    ///
    /// # Panics
    /// As [`Sandbox::until`].
    pub fn until_field(&self, container: &str, field: &str, wanted: &str) {
        let format = format!("{{{{{field}}}}}");
        self.until(["inspect", "-f", &format, container], |run| {
            run.stdout.trim() == wanted
        });
    }
}
