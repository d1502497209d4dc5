//! What guardrails held stands in the chain, with the prompt in force, and without anybody's words.

mod common;

use attendant_store::{AuditEntry, AuditSeq, NewGuardrail, PromptText};
use common::{NOW, answered, directory, open, sqlite, turn};

fn held() -> NewGuardrail {
    NewGuardrail {
        stage: "output",
        category: "prompt_leak",
        rule: "system|initial prompt".into(),
        matched: "system prompt".into(),
        action: "replaced",
        key: None,
    }
}

fn guardrails(entries: &[AuditEntry]) -> Vec<serde_json::Value> {
    entries
        .iter()
        .filter(|entry| entry.kind == "guardrail")
        .map(|entry| serde_json::from_str(&entry.payload).expect("JSON"))
        .collect()
}

#[test]
fn the_prompt_is_kept_once_and_named_by_its_hash() {
    let dir = directory();
    let store = open(dir.path());
    let session = answered(&store).id;
    let number = store.append_turn(session, &turn("Hello", None)).expect("turn");
    let prompt = "You are the attendant. \"Rules\":\n".repeat(300);
    for text in [PromptText::Whole, PromptText::Known] {
        store
            .record_guardrail(session, Some(number), &held(), &prompt, text, NOW)
            .expect("noted");
    }
    let entries = store.audit_entries(AuditSeq::new(0), 1_000).expect("entries");
    let found = guardrails(&entries);
    let whole: String = found
        .iter()
        .filter_map(|entry| entry["prompt"].as_str())
        .collect();
    assert_eq!(whole, prompt);
    let parts = found.iter().filter(|entry| entry["prompt"].is_string()).count();
    assert!(parts > 1 && found[0]["of"] == parts, "{parts}");
    let hits: Vec<_> = found.iter().filter(|entry| entry["stage"] == "output").collect();
    assert_eq!(hits.len(), 2);
    for hit in hits {
        assert_eq!(hit["prompt_sha256"], found[0]["prompt_sha256"]);
        assert_eq!((&hit["turn"], &hit["action"]), (&1.into(), &"replaced".into()));
    }
    let record = store.session(session).expect("session");
    let events: Vec<_> = record
        .events
        .iter()
        .filter(|event| event.kind == "guardrail")
        .collect();
    assert_eq!(events.len(), 2);
    assert_eq!(
        events[0].detail.as_deref(),
        Some("output: prompt_leak (replaced)")
    );
    assert!(store.verify(None).expect("verify").is_sound());
}

#[test]
fn an_altered_prompt_is_named() {
    let dir = directory();
    let store = open(dir.path());
    let session = answered(&store).id;
    store
        .record_guardrail(session, None, &held(), "the prompt", PromptText::Whole, NOW)
        .expect("noted");
    let db = sqlite(dir.path());
    db.execute_batch("DROP TRIGGER audit_no_update").expect("drop");
    let changed = db
        .execute(
            "UPDATE audit SET payload = replace(payload, 'the prompt', 'no prompt') WHERE payload LIKE '%the prompt%'",
            [],
        )
        .expect("update");
    assert_eq!(changed, 1);
    let seen = store.verify(None).expect("verify");
    assert!(!seen.is_sound());
    assert!(
        seen.findings[0].to_string().contains("was altered"),
        "{:?}",
        seen.findings
    );
}

#[test]
fn data_left_out_are_noted() {
    let dir = directory();
    let store = open(dir.path());
    let data = NewGuardrail {
        stage: "data",
        action: "left_out",
        key: Some("knowledge[0]".into()),
        ..held()
    };
    store.record_screened(&data, NOW).expect("noted");
    let entries = store.audit_entries(AuditSeq::new(0), 1_000).expect("entries");
    let found = guardrails(&entries);
    assert_eq!(found[0]["key"], "knowledge[0]");
    assert!(found[0].get("prompt_sha256").is_none() && found[0].get("turn").is_none());
}
