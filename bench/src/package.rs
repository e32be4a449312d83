//! The programs that are measured, in every form in which a subject wants them: an image in ketch's store, an archive of it,
//! a directory and an archive of the Linux half's files, and the wasm half's module.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde_json::Value;

use crate::call::Call;
use crate::job::Which;
use crate::measure::MEASURES;
use crate::options::Options;
use crate::watch::Waiting;

/// The names of the built-in images (`fixtures/images/build.py`): what is timed, and what talks over networks.
const BUILT_IN: &str = "ketch-bench";
const NET: &str = "ketch-bench-net";
/// The HTTP component in the latter.
pub(crate) const HTTP_MODULE: &str = "/http.wasm";

/// The platforms of wasm images that a level may find.
const WASM: &str = "wasi/wasm";

/// Everything about the programs.
#[derive(Debug)]
pub(crate) struct Package {
    /// For the files of this run.
    pub(crate) dir: PathBuf,
    pub(crate) is_built_in: bool,
    /// `ketch load` makes the image of it.
    pub(crate) archive: PathBuf,
    main: Program,
    /// What talks over networks, where that is measured.
    net: Option<Program>,
    /// What `inspect` says of the images.
    pub(crate) digests: Vec<String>,
}

/// A program for both worlds, or why there is none.
#[derive(Debug)]
struct Program {
    linux: Result<LinuxHalf, String>,
    wasm: Result<WasmHalf, String>,
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
    /// The same of [`HTTP_MODULE`].
    pub(crate) http: Result<PathBuf, String>,
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
        let main = makes.program(first, last, "");
        if let (Err(reason), Err(_)) = (&main.linux, &main.wasm) {
            bail!("{reason}");
        }
        let mut digests = makes.digests(&images);
        let net = match is_built_in && wants_network(options) {
            true => Some(makes.net()?),
            false => None,
        };
        if net.is_some() {
            digests.extend(makes.digests(&[NET.to_owned()]));
        }
        Ok(Self {
            dir: dir.to_path_buf(),
            is_built_in,
            archive,
            main,
            net,
            digests,
        })
    }

    /// Takes the built-in images away again.
    pub(crate) fn forget(options: &Options, until: Waiting) -> anyhow::Result<()> {
        if !options.images.is_empty() {
            return Ok(());
        }
        let images = match wants_network(options) {
            true => [BUILT_IN, NET].as_slice(),
            false => &[BUILT_IN],
        };
        let mut first = Ok(());
        for image in images {
            let remove = ketch(options).args(["rmi", image]);
            let removed = remove.output(until.whatever_happens());
            first = first.and(removed.map(|_| ()));
        }
        first
    }

    /// Whether there are programs that talk over networks.
    pub(crate) fn has_net(&self) -> bool {
        self.net.is_some()
    }

    fn program(&self, which: Which) -> anyhow::Result<&Program> {
        match which {
            Which::Main => Ok(&self.main),
            Which::Net => self.net.as_ref().context("no network is measured"),
        }
    }

    /// The Linux half of a program.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn linux(&self, which: Which) -> anyhow::Result<&LinuxHalf> {
        let half = self.program(which)?.linux.as_ref();
        half.map_err(|reason| anyhow!("there is no Linux image: {reason}"))
    }

    /// The wasm half of a program.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn wasm(&self, which: Which) -> anyhow::Result<&WasmHalf> {
        let half = self.program(which)?.wasm.as_ref();
        half.map_err(|reason| anyhow!("there is no wasm image: {reason}"))
    }
}

fn wants_network(options: &Options) -> bool {
    let network = MEASURES.iter().filter(|one| one.group.is_network());
    network.into_iter().any(|one| options.wants(one.name))
}

/// Lays out the forms of images.
struct Forms<'a> {
    options: &'a Options,
    dir: &'a Path,
    until: Waiting<'a>,
}

impl Forms<'_> {
    /// The built-in programs that talk over networks.
    fn net(&self) -> anyhow::Result<Program> {
        let archive = self.dir.join("net.tar");
        File::create(&archive)?.write_all(self.options.net_archive)?;
        self.ketch(&["load", "--quiet", "-i", &archive.display().to_string()])?;
        Ok(self.program(NET, NET, "net-"))
    }

    /// Both halves; the names of their files begin with `prefix`.
    fn program(&self, linux: &str, wasm: &str, prefix: &str) -> Program {
        let reason = |error: anyhow::Error| format!("{error:#}");
        Program {
            linux: self.linux(linux, prefix).map_err(reason),
            wasm: self.wasm(wasm, prefix).map_err(reason),
        }
    }

    fn linux(&self, image: &str, prefix: &str) -> anyhow::Result<LinuxHalf> {
        let platform = linux_platform()?;
        let tree = self.dir.join(format!("{prefix}tree"));
        let tar = self.dir.join(format!("{prefix}tree.tar"));
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

    fn wasm(&self, image: &str, prefix: &str) -> anyhow::Result<WasmHalf> {
        self.with_container(image, WASM, |name, record| {
            let copied = |path: &str, to: &str| {
                let to = self.dir.join(format!("{prefix}{to}"));
                let from = format!("{name}:{path}");
                match self.ketch(&["cp", &from, &to.display().to_string()]) {
                    Ok(_) => Ok(to),
                    Err(error) => Err(format!("{error:#}")),
                }
            };
            Ok(WasmHalf {
                image: image.to_owned(),
                platform: WASM.to_owned(),
                module: copied(&text(record, "/0/Path")?, "module.wasm"),
                http: match prefix {
                    "" => Err("the image has none".to_owned()),
                    _ => copied(HTTP_MODULE, "http.wasm"),
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
        // Only somebody's own image has a command.
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
