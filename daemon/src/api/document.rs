//! Document: the OpenAPI description, made from the handlers; what holds for all of them is added here.

use serde_json::{Map, Value, json};
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder};

use super::problem::PROBLEM_JSON;

/// Every operation may answer so; 404 and 409 are told apart by `type`.
const PROBLEMS: &[(&str, &str)] = &[
    ("400", "It cannot be read."),
    ("401", "No token, or one that is not in force."),
    ("403", "This token may not."),
    ("404", "Not there, or not for this token."),
    ("405", "Not with this method."),
    ("409", "The state of things does not allow it."),
    ("413", "The body is too long."),
    ("415", "Not this kind of body."),
    ("422", "Understood, but it makes no sense."),
    ("429", "Too often; see Retry-After."),
    ("500", "A fault of ours; the log knows more."),
    ("503", "Not now; see Retry-After."),
];

/// Before the routes.
pub fn begin() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Attendant")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "The telephone attendant's API: sessions, calls, recordings, audit chain, streams, live events.",
        ))
        .build();
    OpenApiBuilder::new().info(info).build()
}

/// Behind the routes: the JSON that is served.
pub fn finish(described: &OpenApi) -> String {
    let mut document = serde_json::to_value(described).unwrap_or_default();
    document["servers"] = json!([{ "url": "/api/v1" }]);
    document["security"] = json!([{ "token": [] }]);
    document["components"]["securitySchemes"] = json!({ "token": { "type": "http", "scheme": "bearer" } });
    document["components"]["schemas"]["Problem"] = problem_schema();
    let content = json!({ PROBLEM_JSON: { "schema": { "$ref": "#/components/schemas/Problem" } } });
    let responses: Map<String, Value> = PROBLEMS
        .iter()
        .map(|(status, description)| {
            let response = json!({ "description": description, "content": content });
            (format!("Problem{status}"), response)
        })
        .collect();
    document["components"]["responses"] = Value::Object(responses);
    // No object takes what it does not name.
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        for (_, schema) in schemas.iter_mut().filter(|(name, _)| name.ends_with("Body")) {
            schema["additionalProperties"] = json!(false);
        }
    }
    let operations = document["paths"]
        .as_object_mut()
        .into_iter()
        .flat_map(|paths| paths.iter_mut())
        .filter_map(|(path, methods)| Some((path, methods.as_object_mut()?)))
        .flat_map(|(path, methods)| {
            methods
                .iter_mut()
                .map(move |(method, operation)| (path, method, operation))
        });
    for (path, method, operation) in operations {
        complete(path, method, operation);
    }
    document.to_string()
}

fn complete(path: &str, method: &str, operation: &mut Value) {
    if !matches!(method, "get" | "post" | "put" | "patch" | "delete") {
        return;
    }
    // Handlers of different files have the same names.
    let words = path
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty());
    let name: Vec<&str> = std::iter::once(method).chain(words).collect();
    operation["operationId"] = json!(name.join("_"));
    for (status, _) in PROBLEMS {
        let reference = json!({ "$ref": format!("#/components/responses/Problem{status}") });
        if let Some(responses) = operation["responses"].as_object_mut() {
            responses.entry(*status).or_insert(reference);
        }
    }
    if operation["parameters"].is_null() {
        operation["parameters"] = json!([]);
    }
    if let Some(parameters) = operation["parameters"].as_array_mut() {
        for parameter in parameters.iter_mut() {
            if parameter["in"] == "path" && parameter["name"] == "id" {
                parameter["schema"] = json!({ "type": "string", "format": "uuid" });
            }
            // A query has no null: what is absent is absent.
            if let Some(types) = parameter["schema"]["type"].as_array() {
                let kept = types.iter().find(|kind| *kind != "null").cloned();
                parameter["schema"]["type"] = kept.unwrap_or_default();
            }
        }
        if method == "post" {
            parameters.push(json!({
                "name": "Idempotency-Key", "in": "header", "required": false,
                "description": "Sent again with the same key, the same request is answered again and not done again.",
                "schema": { "type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[A-Za-z0-9._:-]{1,200}$" },
            }));
        }
    }
    for sound in [
        "/requestBody/content/audio~1wav/schema",
        "/responses/200/content/audio~1flac/schema",
        "/responses/206/content/audio~1flac/schema",
    ] {
        if let Some(schema) = operation.pointer_mut(sound) {
            schema["format"] = json!("binary");
        }
    }
}

fn problem_schema() -> Value {
    json!({
        "type": "object",
        "description": "What went wrong (RFC 9457).",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": { "type": "string", "description": "Names the kind of problem: urn:attendant:problem:…" },
            "title": { "type": "string" },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "detail": { "type": "string", "description": "What it was this time, and what to do." },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_says_all_of_its_answers() {
        let (_, described) = super::super::routes().split_for_parts();
        let document: Value = serde_json::from_str(&finish(&described)).expect("JSON");
        let paths = document["paths"].as_object().expect("paths");
        assert!(paths.len() >= 18, "{} paths", paths.len());
        for (path, methods) in paths {
            for (method, operation) in methods.as_object().expect("methods") {
                let answers = operation["responses"].as_object().expect("answers");
                for (status, _) in PROBLEMS {
                    assert!(answers.contains_key(*status), "{method} {path}: {status}");
                }
                assert!(
                    answers.keys().any(|status| status < &"400".to_owned()),
                    "{method} {path}"
                );
                for parameter in operation["parameters"].as_array().expect("parameters") {
                    assert!(
                        parameter["schema"]["type"].is_string()
                            || parameter["schema"]["enum"].is_array()
                            || parameter["schema"]["$ref"].is_string(),
                        "{method} {path}: {parameter}"
                    );
                }
            }
        }
        assert!(
            document["components"]["schemas"]["NewSessionBody"]["properties"]["case"]["maxLength"] == 200
        );
    }
}
