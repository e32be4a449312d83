//! The program that is measured, in every form in which a subject wants it: an image in ketch's store, an archive of it,
//! a directory and an archive of the Linux half's files, and the wasm half's module.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::call::Call;
use crate::options::Options;
use crate::watch::Waiting;

/// The name of the built-in image (`fixtures/images/build.py`).
const BUILT_IN: &str = "ketch-bench";

/// The platforms of wasm images that a level may find.
const WASM: &str = "wasi/wasm";

/// Everything about the program.
#[derive(Debug)]
pub(crate) struct Package {
    /// For the files of this run.
    pub(crate) dir: PathBuf,
    pub(crate) is_built_in: bool,
    /// `ketch load` makes the image of it.
    pub(crate) archive: PathBuf,
    pub(crate) linux: Result<LinuxHalf, String>,
    pub(crate) wasm: Result<WasmHalf, String>,
    /// What `inspect` says of the images.
    pub(crate) digests: Vec<String>,
}

/// The Linux image.
#[derive(Debug)]
pub(crate) struct LinuxHalf {
    pub(crate) image: String,
    pub(crate) platform: String,
    /// Its files.
    pub(crate) tree: PathBuf,
    /// The same, as an archive.
    pub(crate) tar: PathBuf,
    /// The program.
    pub(crate) program: String,
    /// Its arguments, unless a job has others.
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
}

/// The wasm image.
#[derive(Debug)]
pub(crate) struct WasmHalf {
    pub(crate) image: String,
    pub(crate) platform: String,
    /// The module, or why it is no file that can be had.
    pub(crate) module: Result<PathBuf, String>,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<String>,
}

/// `ketch` with its global flags.
pub(crate) fn ketch(options: &Options) -> Call {
    Call::new(options.ketch.display().to_string()).args(&options.ketch_flags)
}

impl Package {
    /// Loads the built-in image, or takes the user's, and lays out its forms in `dir`.
    ///
    /// # Errors
    /// When ketch itself cannot be used.
    pub(crate) fn make(options: &Options, dir: &Path, until: Waiting) -> anyhow::Result<Self> {
        let archive = dir.join("image.tar");
        let is_built_in = options.images.is_empty();
        let images = if is_built_in {
            File::create(&archive)?.write_all(options.archive)?;
            let load = ketch(options).args(["load", "--quiet", "-i"]);
            load.args([archive.display().to_string()]).output(until)?;
            vec![BUILT_IN.to_owned()]
        } else {
            let save = ketch(options).args(["save", "-o", &archive.display().to_string()]);
            save.args(&options.images)
                .output(until)
                .context("cannot use the image: pull or load it first")?;
            options.images.clone()
        };
        let (Some(first), Some(last)) = (images.first(), images.last()) else {
            bail!("there is no image");
        };
        let makes = Forms {
            options,
            dir,
            until,
        };
        let linux = makes.linux(first);
        let wasm = makes.wasm(last);
        if linux.is_err() && wasm.is_err() {
            linux
                .as_ref()
                .map_err(|error| anyhow::anyhow!("{error:#}"))?;
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            is_built_in,
            archive,
            linux: linux.map_err(|error| format!("{error:#}")),
            wasm: wasm.map_err(|error| format!("{error:#}")),
            digests: makes.digests(&images),
        })
    }

    /// Takes the built-in image away again.
    pub(crate) fn forget(options: &Options, until: Waiting) -> anyhow::Result<()> {
        if options.images.is_empty() {
            let remove = ketch(options).args(["rmi", BUILT_IN]);
            remove.output(until.whatever_happens())?;
        }
        Ok(())
    }
}

/// Lays out the forms of images.
struct Forms<'a> {
    options: &'a Options,
    dir: &'a Path,
    until: Waiting<'a>,
}

impl Forms<'_> {
    fn linux(&self, image: &str) -> anyhow::Result<LinuxHalf> {
        let platform = linux_platform()?;
        let tree = self.dir.join("tree");
        let tar = self.dir.join("tree.tar");
        self.with_container(image, &platform, |name, record| {
            let from = format!("{name}:/.");
            self.ketch(&["cp", &from, &tree.display().to_string()])?;
            self.ketch(&["export", "-o", &tar.display().to_string(), name])?;
            Ok(LinuxHalf {
                image: image.to_owned(),
                platform: platform.clone(),
                tree: tree.clone(),
                tar: tar.clone(),
                program: text(record, "/0/Path")?,
                args: texts(record, "/0/Args"),
                env: texts(record, "/0/Config/Env"),
            })
        })
    }

    fn wasm(&self, image: &str) -> anyhow::Result<WasmHalf> {
        let module = self.dir.join("module.wasm");
        self.with_container(image, WASM, |name, record| {
            let path = text(record, "/0/Path")?;
            let from = format!("{name}:{path}");
            let copied = self.ketch(&["cp", &from, &module.display().to_string()]);
            Ok(WasmHalf {
                image: image.to_owned(),
                platform: WASM.to_owned(),
                module: match copied {
                    Ok(_) => Ok(module.clone()),
                    Err(error) => Err(format!("{error:#}")),
                },
                args: texts(record, "/0/Args"),
                env: texts(record, "/0/Config/Env"),
            })
        })
    }

    /// Does something with a container of the image that is never started.
    fn with_container<T>(
        &self,
        image: &str,
        platform: &str,
        work: impl FnOnce(&str, &Value) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let name = format!(
            "ketch-bench-{}-{}",
            std::process::id(),
            image_word(platform)
        );
        let mut args = vec!["create", "--name", &name, "--network", "none"];
        args.extend(["--pull", "never", "--platform", platform, image]);
        args.extend(self.options.command.iter().map(String::as_str));
        self.ketch(&args)?;
        let record = self.ketch(&["inspect", &name]);
        let result = record
            .and_then(|text| Ok(serde_json::from_str(&text)?))
            .and_then(|record| work(&name, &record));
        // After an interrupt, too.
        let remove = ketch(self.options).args(["rm", "-f", &name]);
        let removed = remove.output(self.until.whatever_happens());
        let result = result?;
        removed?;
        Ok(result)
    }

    fn digests(&self, images: &[String]) -> Vec<String> {
        let digest = |image: &String| {
            let format = "{{.Id}}";
            self.ketch(&["image", "inspect", "--format", format, image])
        };
        let lines = images.iter().map(|image| match digest(image) {
            Ok(id) => format!("{image}: {}", id.trim()),
            Err(error) => format!("{image}: {error:#}"),
        });
        lines.collect()
    }

    fn ketch(&self, args: &[&str]) -> anyhow::Result<String> {
        ketch(self.options).args(args).output(self.until)
    }
}

fn image_word(platform: &str) -> &str {
    platform.split('/').next().unwrap_or(platform)
}

/// The platform of this machine, as images have it.
fn linux_platform() -> anyhow::Result<String> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("linux/amd64".to_owned()),
        "aarch64" => Ok("linux/arm64".to_owned()),
        other => bail!("there is no name of an image's platform for `{other}`"),
    }
}

fn text(record: &Value, pointer: &str) -> anyhow::Result<String> {
    let text = record.pointer(pointer).and_then(Value::as_str);
    let text = text.with_context(|| format!("`inspect` shows no `{pointer}`"))?;
    Ok(text.to_owned())
}

fn texts(record: &Value, pointer: &str) -> Vec<String> {
    let list = record.pointer(pointer).and_then(Value::as_array);
    let texts = list.into_iter().flatten().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}
