//! Why a build failed: what is wrong, and where in the Dockerfile.

use std::fmt;
use std::io;
use std::path::PathBuf;

use engine::EngineError;
use image::ImageError;

/// A cause of any kind.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A place in a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, as the user named it.
    pub file: String,
    /// The line, from 1 on.
    pub line: usize,
    /// The column, from 1 on, in characters.
    pub column: usize,
    /// The line itself.
    pub text: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A build that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Something of the Dockerfile is wrong or could not be done.
    #[error("{place}: {what}")]
    At {
        /// Where.
        place: Box<Place>,
        /// What.
        what: String,
        /// What helps.
        hint: Option<String>,
        /// The cause.
        source: Option<Cause>,
    },
    /// A program of a RUN instruction ended with a failure.
    #[error("{place}: the command ended with exit code {code}")]
    Run {
        /// Where.
        place: Box<Place>,
        /// Its exit code.
        code: u8,
        /// The last lines that it printed.
        output: String,
    },
    /// The file with the instructions cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The build context is not usable.
    #[error("cannot use the build context: {what}")]
    Context {
        /// Why.
        what: String,
        /// The cause.
        source: Option<Cause>,
    },
    /// No stage has this name.
    #[error("cannot build target `{name}`: no stage has this name; there are {stages}")]
    NoSuchTarget {
        /// What was asked for.
        name: String,
        /// What there is.
        stages: String,
    },
    /// An option that cannot be honoured.
    #[error("{0}")]
    Option(String),
    /// Lint checks failed and the build was told to care.
    #[error("the check found {0} problems")]
    Check(usize),
    /// The user stopped it.
    #[error("the build was stopped")]
    Stopped,
    /// Something that belongs to no instruction could not be done.
    #[error("cannot {what}")]
    Io {
        /// What.
        what: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The result cannot be written.
    #[error("cannot write the output `{}`", path.display())]
    Output {
        /// Where to.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// An operation of the engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An operation of the image store failed.
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl BuildError {
    /// Names what was being done.
    pub(crate) fn io(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }

    /// Something is wrong at a place.
    pub(crate) fn at(place: Place, what: impl Into<String>) -> Self {
        Self::At {
            place: Box::new(place),
            what: what.into(),
            hint: None,
            source: None,
        }
    }

    /// The same with a hint.
    #[must_use]
    pub(crate) fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Self::At { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// Puts the place of the instruction around an error that has none.
    #[must_use]
    pub(crate) fn or_at(self, place: &Place, what: &str) -> Self {
        match self {
            Self::At { .. } | Self::Run { .. } | Self::Stopped => self,
            other => Self::At {
                place: Box::new(place.clone()),
                what: what.to_owned(),
                hint: None,
                source: Some(Box::new(other)),
            },
        }
    }

    /// Where it is, for the line to be shown.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::At { place, .. } | Self::Run { place, .. } => Some(place),
            _ => None,
        }
    }

    /// What helps.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::At { hint, .. } => hint.clone(),
            Self::Image(error) => error.hint(),
            _ => None,
        }
    }
}
