//! What a language model is asked, grounded in what is known of a skill.

use super::AnswerForm;
use crate::edge::Graph;
use serde_json::{Value, json};

/// What is known of a skill.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Grounding {
    pub(super) skill: String,
    pub(super) skill_id: String,
    pub(super) description: String,
    /// Other names that may be trained on.
    pub(super) alternatives: Vec<String>,
    /// Texts of the same graph that the skill has already.
    pub(super) known: Vec<String>,
    /// Skills that share most texts with it.
    pub(super) neighbours: Vec<String>,
}

/// Most entries of each list in a prompt.
const MOST: usize = 8;

/// What the texts of a graph are called, and what makes a good one.
fn wanted(graph: Graph) -> (&'static str, &'static str) {
    match graph {
        Graph::Job => (
            "job titles",
            "Each is a title as employers write it above a vacancy, of two to eight words, for a person whose work needs the skill. Different trades, levels and wordings; no two alike.",
        ),
        Graph::Sentence => (
            "sentences of vacancies",
            "Each is one sentence of a job advertisement that asks for the skill or describes work that needs it, of eight to thirty words, without naming the skill literally where that can be avoided.",
        ),
        Graph::Alternative => (
            "other names of the skill",
            "Each is another way to name exactly this skill, of one to eight words, as a professional would write it.",
        ),
    }
}

/// The first messages of a conversation.
pub(super) fn messages(graph: Graph, grounding: &Grounding, count: usize) -> Vec<Value> {
    let (what, rule) = wanted(graph);
    let mut user = format!("Skill: {}\n", grounding.skill);
    let lists = [
        ("Also called", &grounding.alternatives),
        ("Related skills", &grounding.neighbours),
        ("Known examples, not to be repeated", &grounding.known),
    ];
    if !grounding.description.is_empty() {
        user += &format!("Description: {}\n", grounding.description);
    }
    for (name, list) in lists {
        if !list.is_empty() {
            let shown: Vec<&str> = list.iter().take(MOST).map(String::as_str).collect();
            user += &format!("{name}: {}\n", shown.join("; "));
        }
    }
    user += &format!(
        "Write {count} {what}. {rule} English only. Answer with JSON alone, of the form {{\"texts\": [\"...\", \"...\"]}}."
    );
    vec![
        json!({"role": "system", "content": "You know the labour market and write short, realistic, factual texts."}),
        json!({"role": "user", "content": user}),
    ]
}

/// How the shape of an answer is asked for, if not in the prompt alone.
pub(super) fn format(form: AnswerForm, count: usize) -> Option<Value> {
    let schema = json!({
        "type": "object",
        "properties": {
            "texts": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": count}
        },
        "required": ["texts"],
        "additionalProperties": false
    });
    match form {
        AnswerForm::Schema => Some(json!({
            "type": "json_schema",
            "json_schema": {"name": "texts", "strict": true, "schema": schema}
        })),
        AnswerForm::Object => Some(json!({"type": "json_object", "schema": schema})),
        AnswerForm::Prompt => None,
    }
}

/// The texts of an answer's content.
///
/// # Errors
/// Why it is no such answer, in words that the model is told.
pub(super) fn texts(content: &str) -> Result<Vec<String>, String> {
    // Some models wrap JSON into a code block, whatever they are told.
    let trimmed = content.trim();
    let inner = trimmed
        .strip_prefix("```json")
        .or_else(|| trimmed.strip_prefix("```"))
        .and_then(|rest| rest.strip_suffix("```"))
        .unwrap_or(trimmed);
    let value: Value =
        serde_json::from_str(inner.trim()).map_err(|error| format!("the answer is no JSON: {error}"))?;
    let list = value
        .get("texts")
        .and_then(Value::as_array)
        .ok_or_else(|| "the answer has no list `texts`".to_string())?;
    let texts: Option<Vec<String>> = list.iter().map(|text| text.as_str().map(str::to_string)).collect();
    let texts = texts.ok_or_else(|| "the list `texts` holds something else than texts".to_string())?;
    if texts.is_empty() {
        return Err("the list `texts` is empty".into());
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_or_refused_with_a_reason() {
        assert_eq!(texts(r#"{"texts": ["a", "b"]}"#).unwrap(), ["a", "b"]);
        assert_eq!(texts("```json\n{\"texts\": [\"a\"]}\n```").unwrap(), ["a"]);
        for (content, reason) in [
            ("{\"texts\": [\"a\"", "no JSON"),
            ("[\"a\"]", "no list `texts`"),
            ("{\"texts\": []}", "is empty"),
            ("{\"texts\": [1]}", "something else"),
            ("Sure! Here are some titles", "no JSON"),
        ] {
            assert!(texts(content).unwrap_err().contains(reason), "{content}");
        }
    }

    #[test]
    fn prompts_hold_what_is_known() {
        let grounding = Grounding {
            skill: "bake bread".into(),
            description: "Make loaves.".into(),
            known: vec!["baker".into()],
            ..Grounding::default()
        };
        let messages = messages(Graph::Job, &grounding, 5);
        let user = messages[1]["content"].as_str().unwrap();
        for part in [
            "Skill: bake bread",
            "Description: Make loaves.",
            "not to be repeated: baker",
            "Write 5 job titles",
        ] {
            assert!(user.contains(part), "{user}");
        }
        assert!(!user.contains("Also called"));
    }
}
