"""What schemathesis cannot make up from the document: a WAV file."""

import io
import struct
import wave

import schemathesis
from hypothesis import strategies as st


def wav(rate_hz: int, ms: int, level: int) -> bytes:
    """A buzz, or silence."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        count = max(1, rate_hz * ms // 1000)
        file.writeframes(b"".join(struct.pack("<h", level if n % 40 < 20 else -level) for n in range(count)))
    return out.getvalue()


schemathesis.openapi.media_type(
    "audio/wav",
    st.builds(wav, st.sampled_from([8000, 16000, 48000]), st.integers(1, 1500), st.sampled_from([0, 300, 8000])),
)
