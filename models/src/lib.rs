//! Engines (speech to text, language model, text to speech) as worker processes, and the model files they run.
mod add;
mod blobs;
pub mod catalog;
pub mod cli;
pub mod client;
pub mod convert;
mod ct2;
pub mod error;
pub mod fetch;
pub mod files;
mod ggml;
pub mod inspect;
pub mod listing;
mod mel;
pub mod permit;
mod pip;
pub mod progress;
pub mod protocol;
mod q8_0;
pub mod supervise;
mod wheel;
pub mod worker;

pub use catalog::{Catalog, Kind, Profile};
pub use error::ModelError;
pub use files::{ModelFile, ModelStore, Resolved, Voice, default_dir};
