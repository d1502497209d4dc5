//! Workers: where the caller finds the speech engines and their models.

use std::{
    env,
    path::{Path, PathBuf},
};

use attendant_models::{ModelError, ModelStore, Profile, Resolved, default_dir};

use super::engine::{Engine, EngineError};

/// Why an engine cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ModelsError {
    /// A model is missing; the message has the command that fetches it.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The worker does not run.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Which models the caller's own engines use.
#[derive(Debug, Clone)]
pub struct Models {
    /// Where they are; `None` is the default place.
    pub dir: Option<PathBuf>,
    /// Which of them; `None` takes the best that is installed.
    pub profile: Option<Profile>,
    /// Compute threads; nothing else of ours computes while they run.
    pub threads: usize,
}

impl Default for Models {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            dir: None,
            profile: None,
            threads,
        }
    }
}

impl Models {
    /// An ear.
    ///
    /// # Errors
    /// [`ModelsError`].
    pub fn stt(&self) -> Result<Engine, ModelsError> {
        let found = self.resolve()?;
        let args = [
            "--model".to_owned(),
            text(&found.stt.path),
            "--threads".to_owned(),
            self.threads.to_string(),
        ];
        Ok(Engine::start(&program("attendant-stt"), &args)?)
    }

    /// A voice.
    ///
    /// # Errors
    /// [`ModelsError`].
    pub fn tts(&self) -> Result<Engine, ModelsError> {
        let found = self.resolve()?;
        let args = [
            ("--voice", text(&found.voice.onnx)),
            ("--config", text(&found.voice.json)),
            ("--runtime", text(&found.onnxruntime)),
            ("--threads", self.threads.to_string()),
        ];
        let args: Vec<String> = args
            .into_iter()
            .flat_map(|(key, value)| [key.to_owned(), value])
            .collect();
        Ok(Engine::start(&program("attendant-tts"), &args)?)
    }

    fn resolve(&self) -> Result<Resolved, ModelError> {
        let store = ModelStore::open(self.dir.clone().unwrap_or_else(default_dir))?;
        match self.profile {
            Some(profile) => store.resolve(profile),
            // Nobody waits for the caller's ear, so the larger model hears better at no cost.
            None => [Profile::Standard, Profile::Custom]
                .into_iter()
                .find_map(|profile| store.resolve(profile).ok())
                .map_or_else(|| store.resolve(Profile::Small), Ok),
        }
    }
}

/// A worker lies beside this executable, or where `ATTENDANT_BIN_DIR` says.
fn program(name: &str) -> PathBuf {
    let beside = || Some(env::current_exe().ok()?.parent()?.to_owned());
    env::var_os("ATTENDANT_BIN_DIR")
        .map(PathBuf::from)
        .or_else(beside)
        .unwrap_or_default()
        .join(name)
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
