//! Engines (speech to text, language model, text to speech) as worker processes, and the model files they run.
pub mod protocol;
