//! Whisper weights from CTranslate2's form to whisper.cpp's, quantised to `q8_0`.
//!
//! CTranslate2 fuses query, key and value into one matrix (`linear_0`; for cross attention key and value into
//! `linear_1`); Whisper's key has no bias, so that third is dropped. Convolutions stay in half precision, biases,
//! norms and positions become single precision, all other matrices `q8_0`. Tensors keep the order of the original
//! checkpoint. The same input gives the same bytes on every machine.
//!
//! Sources: CTranslate2, python/ctranslate2/converters (names); whisper.cpp 1.8.3, src/whisper-arch.h (names).

use crate::ct2::Ct2;
use crate::error::ModelError;
use crate::ggml::{self, Hyperparameters, Storage};
use crate::mel;

/// Converts `model` (the bytes of `model.bin`) with its `vocabulary` (the text of `vocabulary.txt`).
///
/// # Errors
/// [`ModelError::Convert`] when the input is not a float Whisper model of a known form.
pub fn whisper_to_ggml(model: &[u8], vocabulary: &str) -> Result<Vec<u8>, ModelError> {
    let file = Ct2::parse(model)?;
    if file.spec != "WhisperSpec" {
        return Err(fail(format!("it is a {}, not a Whisper model", file.spec)));
    }
    let sizes = hyperparameters(&file)?;
    let tokens = base_tokens(vocabulary)?;
    let filters = mel::filters(sizes.mels as usize);
    let mut writer = Writer {
        file: &file,
        out: ggml::header(&sizes, &filters, mel::BINS, &tokens),
    };
    writer.encoder(sizes.audio_layers)?;
    writer.decoder(sizes.text_layers)?;
    Ok(writer.out)
}

fn hyperparameters(file: &Ct2) -> Result<Hyperparameters, ModelError> {
    let extent = |name: &str, axis: usize| -> Result<i32, ModelError> {
        let variable = file.get(name)?;
        let extent = variable.shape().get(axis).copied().unwrap_or(0);
        i32::try_from(extent)
            .ok()
            .filter(|extent| *extent > 0)
            .ok_or_else(|| fail(format!("'{name}' has no dimension {axis}")))
    };
    let heads = |name: &str| file.get(name)?.to_count().map(|count| count as i32);
    let layers = |side: &str| {
        (0..)
            .take_while(|i| file.has(&format!("{side}/layer_{i}/ffn/linear_0/weight")))
            .count() as i32
    };
    Ok(Hyperparameters {
        vocabulary: extent("decoder/embeddings/weight", 0)?,
        audio_context: extent("encoder/position_encodings/encodings", 0)?,
        audio_state: extent("encoder/position_encodings/encodings", 1)?,
        audio_heads: heads("encoder/num_heads")?,
        audio_layers: layers("encoder"),
        text_context: extent("decoder/position_encodings/encodings", 0)?,
        text_state: extent("decoder/position_encodings/encodings", 1)?,
        text_heads: heads("decoder/num_heads")?,
        text_layers: layers("decoder"),
        mels: extent("encoder/conv1/weight", 1)?,
    })
}

struct Writer<'a> {
    file: &'a Ct2<'a>,
    out: Vec<u8>,
}

impl Writer<'_> {
    fn encoder(&mut self, layers: i32) -> Result<(), ModelError> {
        self.plain(
            "encoder.positional_embedding",
            "encoder/position_encodings/encodings",
            Storage::F32,
        )?;
        for conv in ["conv1", "conv2"] {
            self.plain(
                &format!("encoder.{conv}.weight"),
                &format!("encoder/{conv}/weight"),
                Storage::F16,
            )?;
            // whisper.cpp adds this bias to every position: a column, not a row.
            let bias = self.file.get(&format!("encoder/{conv}/bias"))?.to_f32()?;
            ggml::tensor(
                &mut self.out,
                &format!("encoder.{conv}.bias"),
                &[bias.len(), 1],
                Storage::F32,
                &bias,
            )?;
        }
        for layer in 0..layers {
            let (to, from) = (
                format!("encoder.blocks.{layer}"),
                format!("encoder/layer_{layer}"),
            );
            self.self_attention(&to, &from)?;
            self.feed_forward(&to, &from)?;
        }
        self.norm("encoder.ln_post", "encoder/layer_norm")
    }

    fn decoder(&mut self, layers: i32) -> Result<(), ModelError> {
        self.plain(
            "decoder.positional_embedding",
            "decoder/position_encodings/encodings",
            Storage::F32,
        )?;
        self.plain(
            "decoder.token_embedding.weight",
            "decoder/embeddings/weight",
            Storage::Q8_0,
        )?;
        for layer in 0..layers {
            let (to, from) = (
                format!("decoder.blocks.{layer}"),
                format!("decoder/layer_{layer}"),
            );
            self.self_attention(&to, &from)?;
            self.cross_attention(&to, &from)?;
            self.feed_forward(&to, &from)?;
        }
        self.norm("decoder.ln", "decoder/layer_norm")
    }

    fn self_attention(&mut self, to: &str, from: &str) -> Result<(), ModelError> {
        let fused = format!("{from}/self_attention/linear_0");
        self.part(&format!("{to}.attn.query"), &fused, 0, 3, Bias::Kept)?;
        self.part(&format!("{to}.attn.key"), &fused, 1, 3, Bias::Dropped)?;
        self.part(&format!("{to}.attn.value"), &fused, 2, 3, Bias::Kept)?;
        self.part(
            &format!("{to}.attn.out"),
            &format!("{from}/self_attention/linear_1"),
            0,
            1,
            Bias::Kept,
        )?;
        self.norm(
            &format!("{to}.attn_ln"),
            &format!("{from}/self_attention/layer_norm"),
        )
    }

    fn cross_attention(&mut self, to: &str, from: &str) -> Result<(), ModelError> {
        let fused = format!("{from}/attention/linear_1");
        self.part(
            &format!("{to}.cross_attn.query"),
            &format!("{from}/attention/linear_0"),
            0,
            1,
            Bias::Kept,
        )?;
        self.part(&format!("{to}.cross_attn.key"), &fused, 0, 2, Bias::Dropped)?;
        self.part(&format!("{to}.cross_attn.value"), &fused, 1, 2, Bias::Kept)?;
        self.part(
            &format!("{to}.cross_attn.out"),
            &format!("{from}/attention/linear_2"),
            0,
            1,
            Bias::Kept,
        )?;
        self.norm(
            &format!("{to}.cross_attn_ln"),
            &format!("{from}/attention/layer_norm"),
        )
    }

    fn feed_forward(&mut self, to: &str, from: &str) -> Result<(), ModelError> {
        self.part(
            &format!("{to}.mlp.0"),
            &format!("{from}/ffn/linear_0"),
            0,
            1,
            Bias::Kept,
        )?;
        self.part(
            &format!("{to}.mlp.2"),
            &format!("{from}/ffn/linear_1"),
            0,
            1,
            Bias::Kept,
        )?;
        self.norm(&format!("{to}.mlp_ln"), &format!("{from}/ffn/layer_norm"))
    }

    /// The `index`-th of `parts` equal horizontal slices of a linear layer.
    fn part(
        &mut self,
        to: &str,
        from: &str,
        index: usize,
        parts: usize,
        bias: Bias,
    ) -> Result<(), ModelError> {
        let weight = self.file.get(&format!("{from}/weight"))?;
        let &[rows, columns] = weight.shape() else {
            return Err(fail(format!("'{from}/weight' is no matrix")));
        };
        if rows % parts != 0 {
            return Err(fail(format!("'{from}/weight' does not split into {parts}")));
        }
        let rows = rows / parts;
        let values = weight.to_f32()?;
        let slice = part_of(&values, index, rows * columns);
        ggml::tensor(
            &mut self.out,
            &format!("{to}.weight"),
            &[rows, columns],
            Storage::Q8_0,
            slice,
        )?;
        if bias == Bias::Kept {
            let values = self.file.get(&format!("{from}/bias"))?.to_f32()?;
            let slice = part_of(&values, index, rows);
            ggml::tensor(&mut self.out, &format!("{to}.bias"), &[rows], Storage::F32, slice)?;
        }
        Ok(())
    }

    fn norm(&mut self, to: &str, from: &str) -> Result<(), ModelError> {
        self.plain(&format!("{to}.weight"), &format!("{from}/gamma"), Storage::F32)?;
        self.plain(&format!("{to}.bias"), &format!("{from}/beta"), Storage::F32)
    }

    fn plain(&mut self, to: &str, from: &str, storage: Storage) -> Result<(), ModelError> {
        let variable = self.file.get(from)?;
        ggml::tensor(&mut self.out, to, variable.shape(), storage, &variable.to_f32()?)
    }
}

/// Whether a slice of a linear layer has a bias in Whisper.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bias {
    Kept,
    Dropped,
}

/// The `index`-th run of `length` values, or nothing, which [`ggml::tensor`] then refuses.
fn part_of(values: &[f32], index: usize, length: usize) -> &[f32] {
    values.get(index * length..(index + 1) * length).unwrap_or(&[])
}

/// The ordinary tokens as bytes; whisper.cpp names the special ones itself.
fn base_tokens(vocabulary: &str) -> Result<Vec<Vec<u8>>, ModelError> {
    let byte_of = byte_alphabet();
    let mut tokens = Vec::new();
    for line in vocabulary.split('\n') {
        if line == "<|endoftext|>" {
            return Ok(tokens);
        }
        let token: Option<Vec<u8>> = line
            .chars()
            .map(|c| byte_of.get(c as usize).copied().flatten())
            .collect();
        tokens.push(token.ok_or_else(|| fail(format!("token {} is not byte-level text", tokens.len())))?);
    }
    Err(fail("its vocabulary has no <|endoftext|>".into()))
}

/// GPT-2's alphabet: printable bytes stand for themselves, all others for the characters from U+0100 on.
/// Source: OpenAI gpt-2, src/encoder.py `bytes_to_unicode`.
fn byte_alphabet() -> [Option<u8>; 0x144] {
    let mut byte_of = [None; 0x144];
    let mut next = 0x100;
    for byte in 0..=u8::MAX {
        let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let character = if printable { usize::from(byte) } else { next };
        if !printable {
            next += 1;
        }
        if let Some(slot) = byte_of.get_mut(character) {
            *slot = Some(byte);
        }
    }
    byte_of
}

fn fail(reason: String) -> ModelError {
    ModelError::Convert {
        what: "the Whisper model".into(),
        reason,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::ct2::fixture;
    use crate::inspect;

    const STATE: usize = 32;

    /// A complete Whisper of one layer each side and 32 channels; every value of a linear layer is its row number.
    pub(crate) fn tiny_ct2() -> Vec<u8> {
        let mut arrays = Vec::new();
        let mut add = |name: String, shape: Vec<usize>| {
            let row = shape.iter().skip(1).product::<usize>();
            let values = (0..shape.iter().product::<usize>())
                .map(|i| (i / row) as f32)
                .collect();
            arrays.push((name, shape, values));
        };
        let mut linear = |name: &str, rows: usize, columns: usize| {
            add(format!("{name}/weight"), vec![rows, columns]);
            add(format!("{name}/bias"), vec![rows]);
        };
        for (side, attentions) in [("encoder", 1), ("decoder", 2)] {
            let layer = format!("{side}/layer_0");
            linear(&format!("{layer}/self_attention/linear_0"), 3 * STATE, STATE);
            linear(&format!("{layer}/self_attention/linear_1"), STATE, STATE);
            if attentions == 2 {
                linear(&format!("{layer}/attention/linear_0"), STATE, STATE);
                linear(&format!("{layer}/attention/linear_1"), 2 * STATE, STATE);
                linear(&format!("{layer}/attention/linear_2"), STATE, STATE);
            }
            linear(&format!("{layer}/ffn/linear_0"), 4 * STATE, STATE);
            linear(&format!("{layer}/ffn/linear_1"), STATE, 4 * STATE);
        }
        for norm in [
            "encoder/layer_0/self_attention",
            "encoder/layer_0/ffn",
            "encoder",
            "decoder/layer_0/self_attention",
            "decoder/layer_0/attention",
            "decoder/layer_0/ffn",
            "decoder",
        ] {
            add(format!("{norm}/layer_norm/gamma"), vec![STATE]);
            add(format!("{norm}/layer_norm/beta"), vec![STATE]);
        }
        add("encoder/position_encodings/encodings".into(), vec![10, STATE]);
        add("decoder/position_encodings/encodings".into(), vec![5, STATE]);
        add("decoder/embeddings/weight".into(), vec![6, STATE]);
        add("encoder/conv1/weight".into(), vec![STATE, 80, 3]);
        add("encoder/conv1/bias".into(), vec![STATE]);
        add("encoder/conv2/weight".into(), vec![STATE, STATE, 3]);
        add("encoder/conv2/bias".into(), vec![STATE]);
        fixture::file(
            "WhisperSpec",
            &arrays,
            &[("encoder/num_heads", 2), ("decoder/num_heads", 2)],
        )
    }

    pub(crate) const VOCABULARY: &str = "a\nĠb\nĊ\n\n<|endoftext|>\n<|startoftranscript|>\n";

    #[test]
    fn writes_a_model_that_is_recognised_as_whisper() {
        let bytes = whisper_to_ggml(&tiny_ct2(), VOCABULARY).unwrap();
        let found = inspect::whisper::parse(&bytes).unwrap();
        assert_eq!(
            (
                found.sizes.audio_layers,
                found.sizes.text_layers,
                found.sizes.mels
            ),
            (1, 1, 80)
        );
        assert_eq!(found.sizes.vocabulary, 6);
        // Twice the same bytes: a checksum can be pinned.
        assert_eq!(bytes, whisper_to_ggml(&tiny_ct2(), VOCABULARY).unwrap());
    }

    #[test]
    fn takes_the_fused_matrices_apart() {
        let bytes = whisper_to_ggml(&tiny_ct2(), VOCABULARY).unwrap();
        // Biases are row numbers of the fused matrix, so the first value tells the slice.
        for (tensor, first) in [
            ("encoder.blocks.0.attn.query.bias", 0.0f32),
            ("encoder.blocks.0.attn.value.bias", 64.0),
            ("decoder.blocks.0.cross_attn.value.bias", 32.0),
        ] {
            let at = find(&bytes, tensor).unwrap_or_else(|| panic!("{tensor} is missing")) + tensor.len();
            assert_eq!(bytes[at..at + 4], first.to_le_bytes(), "{tensor}");
        }
        assert_eq!(find(&bytes, "attn.key.bias"), None);
    }

    #[test]
    fn tokens_become_bytes() {
        assert_eq!(
            base_tokens(VOCABULARY).unwrap(),
            [b"a".to_vec(), b" b".to_vec(), b"\n".to_vec(), vec![]]
        );
        assert!(base_tokens("a\nb\n").is_err());
        assert!(base_tokens("日\n<|endoftext|>").is_err());
    }

    #[test]
    fn refuses_what_is_not_whisper() {
        let other = fixture::file("TransformerSpec", &[], &[]);
        assert!(
            whisper_to_ggml(&other, VOCABULARY)
                .unwrap_err()
                .to_string()
                .contains("TransformerSpec")
        );
        let empty = fixture::file("WhisperSpec", &[], &[]);
        assert!(whisper_to_ggml(&empty, VOCABULARY).is_err());
    }

    fn find(bytes: &[u8], text: &str) -> Option<usize> {
        bytes
            .windows(text.len())
            .position(|window| window == text.as_bytes())
    }
}
