//! What a Dockerfile can say.

use super::heredoc::Heredoc;
use super::mount::RunMount;

/// An instruction with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// What it is.
    pub kind: Kind,
    /// Its name as it is written.
    pub name: String,
    /// Its first line, from 1 on.
    pub line: usize,
    /// Its last line.
    pub end: usize,
    /// Its text, without line ends.
    pub text: String,
}

/// What an instruction is. Variables stand as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The beginning of a stage.
    From(From),
    /// A command that makes a layer.
    Run(Run),
    /// The default command, or its arguments.
    Cmd(CommandLine),
    /// The program.
    Entrypoint(CommandLine),
    /// Files of the context, of a stage or of an image.
    Copy(Copy),
    /// The same, and archives, URLs and repositories.
    Add(Copy),
    /// Variables of the image: name and value. The second says whether it is the old form.
    Env(Vec<(String, String)>, bool),
    /// Variables of the build.
    Arg(Vec<Arg>),
    /// Labels.
    Label(Vec<(String, String)>, bool),
    /// Ports.
    Expose(Vec<String>),
    /// Paths that hold data.
    Volume(Vec<String>),
    /// Who runs.
    User(String),
    /// Where.
    Workdir(String),
    /// The shell of the shell forms.
    Shell(Vec<String>),
    /// How to ask a container to stop.
    StopSignal(String),
    /// How to see whether a container is well.
    Healthcheck(Health),
    /// An instruction for images that are built upon this one.
    OnBuild(OnBuild),
    /// Who made it.
    Maintainer(String),
}

/// FROM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// The platform.
    pub platform: Option<String>,
    /// An image, a stage, a named context, or `scratch`.
    pub image: String,
    /// The name of the stage.
    pub stage: Option<String>,
    /// `as`, as it is written.
    pub keyword: Option<String>,
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The command.
    pub command: CommandLine,
    /// Heredocs.
    pub heredocs: Vec<Heredoc>,
    /// What is mounted.
    pub mounts: Vec<RunMount>,
    /// `default`, `none` or `host`.
    pub network: Option<String>,
    /// The walls of the step.
    pub security: Security,
    /// Devices of the host.
    pub devices: Vec<Device>,
}

/// `RUN --security`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Security {
    /// Those of every container.
    #[default]
    Sandbox,
    /// None: every capability and device, nothing hidden, no filter.
    Insecure,
}

/// `RUN --device`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name in CDI specifications, `vendor.com/class=name`.
    pub name: String,
    /// The build fails without it.
    pub required: bool,
}

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// A program with arguments.
    Exec(Vec<String>),
    /// A line for the shell.
    Shell(String),
}

/// COPY and ADD.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copy {
    /// What is copied.
    pub sources: Vec<Source>,
    /// Where to.
    pub destination: String,
    /// Where from: the context when absent.
    pub from: Option<String>,
    /// Owner and group of what is copied.
    pub chown: Option<String>,
    /// Its mode.
    pub chmod: Option<String>,
    /// A layer that does not depend on those below.
    pub link: bool,
    /// Keep the directories of the sources.
    pub parents: bool,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
    /// ADD: what the file of a URL must hash to, or the commit of a repository.
    pub checksum: Option<String>,
    /// ADD: keep `.git`.
    pub keep_git_dir: bool,
    /// ADD: unpack archives, or not; when absent, those that are no URLs.
    pub unpack: Option<bool>,
}

/// Something that is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path or a pattern, or for ADD a URL.
    Path(String),
    /// A file with this text.
    Inline(Heredoc),
}

/// ARG: a name and its default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg {
    /// The name.
    pub name: String,
    /// The default.
    pub default: Option<String>,
}

/// HEALTHCHECK. Durations are nanoseconds; 0 means the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// The command; `None` for `HEALTHCHECK NONE`.
    pub command: Option<CommandLine>,
    /// Time between two checks.
    pub interval: i64,
    /// How long one may take.
    pub timeout: i64,
    /// Time in which failures do not count.
    pub start_period: i64,
    /// Time between two checks at the start.
    pub start_interval: i64,
    /// How many failures in a row mean unhealthy.
    pub retries: i64,
}

/// ONBUILD: the instruction as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnBuild {
    /// The instruction with its heredocs.
    pub text: String,
}

impl Kind {
    /// The instruction's name in capitals.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::From(_) => "FROM",
            Self::Run(_) => "RUN",
            Self::Cmd(_) => "CMD",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Copy(_) => "COPY",
            Self::Add(_) => "ADD",
            Self::Env(..) => "ENV",
            Self::Arg(_) => "ARG",
            Self::Label(..) => "LABEL",
            Self::Expose(_) => "EXPOSE",
            Self::Volume(_) => "VOLUME",
            Self::User(_) => "USER",
            Self::Workdir(_) => "WORKDIR",
            Self::Shell(_) => "SHELL",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::OnBuild(_) => "ONBUILD",
            Self::Maintainer(_) => "MAINTAINER",
        }
    }
}
