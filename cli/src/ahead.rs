//! Modules are compiled when they come, beside the rest of a pull: a first run then finds its module
//! in the cache. Only an optimisation: what cannot be compiled is said by the run that wants it.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};

use engine::{ContainerOptions, Engine, WasmOptions};
use image::{Digest, Outcome, Platform, Progress, Pulled, Reference, Task};

use crate::progress::Display;

/// How many modules of one pull are compiled: an image runs one.
const MAX_MODULES: usize = 4;

/// Does `pull`, which reports to what it is given, and compiles the modules that it brings.
pub(crate) fn compiling<E>(
    engine: &Engine,
    display: &Display,
    pull: impl FnOnce(&dyn Progress) -> Result<Pulled, E>,
) -> Result<Pulled, E> {
    let (sender, blobs) = channel();
    std::thread::scope(|scope| {
        scope.spawn(move || compile_blobs(engine, &blobs));
        // The sender ends with the watcher, and so does the thread.
        pull(&Watcher {
            display,
            blobs: sender,
        })
    })
}

/// Compiles the module that lies in a file of an image's layers, when its program is one.
pub(crate) fn compile_program(engine: &Engine, name: &Reference, platform: Option<&Platform>) {
    let text = name.to_string();
    let ours = [Platform::host(), Platform::wasi()];
    match engine.store().resolve(&text, platform) {
        Ok(image) if ours.iter().any(|ours| image.platform.serves(ours)) => {}
        // What cannot run here is not even unpacked.
        Ok(_) | Err(_) => return,
    }
    let options = ContainerOptions {
        image: text,
        platform: platform.cloned(),
        ..ContainerOptions::default()
    };
    match engine.explain(&options) {
        Ok(explanation) => {
            if let Some(module) = &explanation.module {
                compile(engine, module, &options.image);
            }
        }
        Err(error) => tracing::debug!(%error, "nothing to compile"),
    }
}

fn compile_blobs(engine: &Engine, blobs: &Receiver<Digest>) {
    let modules = blobs.iter().filter(|digest| {
        let path = engine.store().content().path(digest);
        is_module(&path)
    });
    for digest in modules.take(MAX_MODULES) {
        let path = engine.store().content().path(&digest);
        compile(engine, &path, &digest.short());
    }
}

fn compile(engine: &Engine, path: &Path, name: &str) {
    if let Err(error) = engine.compile_module(path, name, &WasmOptions::default()) {
        tracing::debug!(%error, name, "a module is not compiled ahead");
    }
}

/// Whether a file begins as every module and component does.
pub(crate) fn is_module(path: &Path) -> bool {
    let mut magic = [0; 4];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut magic))
        .is_ok_and(|()| magic == *b"\0asm")
}

/// Shows the progress, and says which blobs are there.
struct Watcher<'a> {
    display: &'a Display,
    blobs: Sender<Digest>,
}

impl Progress for Watcher<'_> {
    fn begin(&self, task: Task, blob: &Digest, total: Option<u64>) {
        self.display.begin(task, blob, total);
    }

    fn advance(&self, task: Task, blob: &Digest, bytes: u64) {
        self.display.advance(task, blob, bytes);
    }

    fn end(&self, task: Task, blob: &Digest, outcome: Outcome) {
        self.display.end(task, blob, outcome);
        if task == Task::Download && outcome != Outcome::Failed {
            // Whoever compiles may have had enough.
            let _enough = self.blobs.send(*blob);
        }
    }
}
