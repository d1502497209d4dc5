//! What callers may say that no model should answer. The notation is that of [`super::pattern`].
//!
//! Written against what callers really say as well: "forget what I said", "skip the instructions", "thank you for your prompt
//! reply", "I'm a previous customer" are no attacks. `tests/guardrails.rs` holds both kinds.

use super::{Category, pattern::Matcher};

/// Somebody is in danger.
const SAFETY: &[&str] = &[
    "kill|harm|hang|shoot myself",
    "want|wanna|going|gonna ~1 hurt myself",
    "end|ending|take|taking my own life",
    "end|ending my life",
    "want to die !for|of|laughing",
    "wanna die !for|of|laughing",
    "suicide|suicidal",
    "having a|another heart attack",
    "having a stroke",
    "isn't|not|stopped breathing",
    "can't|cannot breathe",
    "he's|she's|child|baby|son|daughter|mother|father|husband|wife|man|woman|person ~1 unconscious|choking",
    "bleeding ~2 heavily|badly",
    "overdose|overdosed|overdosing",
    "swallowed|drank ~2 poison|bleach",
    "house|car|kitchen|building|room|engine|apartment|office|garage|shop is on fire",
    "house's|car's|kitchen's|building's|we're on fire",
    "there's ~1 fire in|at|here|and !station",
    "there is ~1 fire in|at|here|and !station",
    "call|need|send ~2 ambulance|paramedic* !bill|ride|service|report",
    "someone's|somebody's|they're|he's breaking in|into",
    "someone|somebody is breaking in|into",
    "someone|somebody ~1 attacking me|us",
];

/// Somebody threatens.
const THREAT: &[&str] = &[
    "i'll kill|shoot|stab|murder you|him|her|them|everyone|somebody",
    "i will kill|shoot|stab|murder you|him|her|them|everyone|somebody",
    "i'm gonna|going ~1 kill|shoot|stab|murder|hurt you|him|her|them|everyone|somebody",
    "bomb in|at|under|inside your|the|this",
    "plant|planted|put|place|placed a bomb",
    "burn your|the|this shop|house|office|building|place down",
    "i'll|gonna ~1 beat|smash you|your up|face",
    "i know where you live !in|near",
];

/// Attempts to give the model other instructions.
const INJECTION: &[&str] = &[
    "!i|we|can|should|may|could|to|they|don't|not|never|didn't|won't ignore|disregard|forget|override|bypass|discard ~4 instructions|rules|prompt|prompts|guidelines|programming|constraints|restrictions|directives|guardrails !for|on|in|at|about|from|of|i|we|my|you|he|she|they|that",
    "!i|we|can|should|may|could|they|don't|not|never|didn't|won't ignore|disregard|forget|override|bypass|discard ~1 your ~2 instructions|rules|prompt|prompts|guidelines|programming|constraints|restrictions|directives|guardrails !for|on|in|at|about|from|of|i|we|my",
    "want|need|command|order|tell|told you to ignore|disregard|forget|override|bypass your ~2 instructions|rules|prompt|guidelines|programming|constraints|restrictions",
    "want|need|command|order|tell|told you to ignore|disregard|forget|override|bypass ~4 instructions|rules|prompt|guidelines|programming|constraints|restrictions !for|on|in|at|from|i|we",
    "you must|should|can|will|may ignore|disregard|forget|override ~4 instructions|rules|guidelines|programming|restrictions !for|on|in|at|from|i|we|about",
    "ignore|disregard|forget ~1 everything ~2 you ~3 told|instructed|taught|trained|learned !me|us|him|her|my",
    "ignore|disregard|forget everything above|prior|before !i|we",
    "ignore|disregard all previous|prior and",
    "ignore|disregard ~3 previous|prior|above|earlier|preceding command*|prompt*|direction* !for|on|in|at|about|from|i|we|my|you",
    "override|bypass|disable|deactivate|circumvent ~2 your ~1 safety|security|filter|filters|guardrails|protocols|restrictions|limits|rules",
    "turn|switch off ~1 your filter|filters|guardrails|restrictions|rules|safety",
    "here are|is ~2 new|updated|real instructions|prompt|directive|directives !for|on|about",
    "your new instructions|rules|directive|directives|prompt|persona|role|task|purpose|identity|job is|are",
    "your real|true role|task|instructions|purpose|identity is|are",
    "from now on you|you'll ~1 are|must|only|answer|respond|speak|act|obey|ignore|pretend",
    "from now on answer|respond|reply|act|ignore|obey|pretend",
    "you are now a|an|my|the ~2 hacker|robot|ai|assistant|pirate|comedian|terminal|model|character|slave|servant|god|villain|human|dan",
    "you are now dan|called|named|acting|unrestricted|evil",
    "you're now a|an|my|the ~2 hacker|robot|ai|assistant|pirate|comedian|terminal|model|character|slave|servant|god|villain|human|dan",
    "you're now dan|called|named|acting|unrestricted|evil",
    "you're no longer bound|a|an|the ~2 assistant|attendant|receptionist|bot|rules|restrictions",
    "you are no longer bound|a|an|the ~3 assistant|attendant|receptionist|bot|rules|restrictions",
    "you're|are dan",
    "!i|we|he|she|they|to|don't|not|won't|can't|didn't pretend to be",
    "pretend ~1 you're",
    "pretend ~1 you are|can|have|were|don't",
    "pretend ~2 there ~1 no rules|restrictions|limits",
    "want|need you to act|behave|respond|speak|talk|answer|pretend as|like|to",
    "!it|they|he|she|we|you|to|i|would|does|might|also|may act|behave as|like if|though ~1 you|there",
    "!it|they|he|she|we|you|to|i|would|does|might|also|may act|behave as a|an|my ~2 ai|robot|assistant|hacker|expert|terminal|character|human|friend|lawyer|doctor|model|comedian|pirate|girlfriend|boyfriend",
    "roleplay|roleplaying|jailbreak*|jailbroken",
    "role play",
    "play the role of",
    "let's play a game where|in|of",
    "enter|enable|activate|engage ~3 developer|dan|god|sudo|debug|admin|root|unrestricted|jailbreak mode !on|for|in",
    "you're|are ~3 developer|dan|god|sudo|debug|admin|root|unrestricted|jailbreak mode",
    "dan|god|sudo|jailbreak|unrestricted mode",
    "for|as|called|named do anything now",
    "you|you've|ai|model|assistant ~3 no|without restrictions|limitations|filters|guardrails|censorship|ethics !on|for|with|about|to",
    "without ~1 your restrictions|filters|guidelines|limits",
    "system override",
    "this is a|an system|admin|developer message|command|override|instruction",
    "admin|administrator|developer override|command",
    "i'm your developer|creator|programmer|administrator|admin|maker",
    "am your developer|creator|programmer|administrator|admin|maker",
    "this is your developer|creator|programmer|administrator|admin|maker",
    "as your developer|creator|programmer|administrator",
    "end of ~1 prompt|system",
    "begin|start new instructions|prompt|session",
    "repeat|say after me",
    "repeat|echo|copy|print|recite|output|translate|summarize|summarise ~3 everything|all|text|words|sentences|lines|messages ~2 above|preceding",
    "only|always answer|respond|reply|speak|talk in|like|as|with ~1 pirate|rhyme*|emoji*|json|caps|code|poem*|riddle*",
    "talk|speak|answer|respond|reply like a pirate|gangster|rapper|yoda|villain",
    "impersonate|emulate ~1 a|an|another|my|your",
    "opposite day",
    "hypothetically ~8 no rules|restrictions|limits",
    "you must obey|comply|follow ~2 me|commands|orders|instructions",
    "!to|must|they|i|we obey my|me|these",
    "break character",
    "stop being|acting ~3 attendant|receptionist|assistant",
];

/// Questions for the instructions themselves.
const PROMPT_LEAK: &[&str] = &[
    "system|initial|hidden|secret|internal|underlying|base prompt|prompts",
    "hidden|secret|system instructions|directives !came|come|with|for|on|in|to|from|that",
    "your initial|original|underlying|internal|exact|full|own|complete|secret|hidden|programmed instructions|rules|guidelines|configuration|directives|programming !for|on|about|of|if",
    "your prompt !reply|response|service|attention|answer|action|help|call|delivery|payment|return|and|assistance|handling|support|feedback",
    "what|what's ~2 your instructions !for|on|about|if|when|regarding|to|in",
    "tell|show|give|recite|reveal|print|list|describe|share|dump|expose|leak|display|disclose ~3 your instructions|directives|programming|configuration|guardrails|constraints !for|on|about|if|when|regarding|to|how",
    "what|how were|are you ~1 told|instructed|programmed|prompted|configured !about|by|when|on",
    "what|how have you been told|instructed|programmed|prompted|configured !about|by",
    "what you were|are|have ~1 told|instructed|programmed|prompted !about|by",
    "in your prompt|context|programming|configuration",
    "rules ~2 you ~2 given|told|programmed",
    "what ~2 you not|forbidden|prohibited ~2 to|from say|saying|tell|telling|talk|talking|discuss|reveal",
    "what aren't you allowed",
    "starting|beginning|begins|starts with you are|you're",
];

/// Questions for what belongs to others.
const OTHERS_DATA: &[&str] = &[
    "what|who|when|where ~4 last|previous|other|another|earlier caller|customer|client|patient ~3 say|said|ask|asked|want|wanted|call|called|order|ordered|book|booked|pay|paid|buy|bought|name|live|lives",
    "who|who's ~2 last|previous caller|customer|client|patient",
    "give|tell|read|what|what's|share|show|list|get|need ~5 name|names|number|numbers|address|addresses|phone|details|email|emails|data|information|records|account|appointment|appointments ~3 other|another|last|previous caller|callers|customer|customers|client|clients|patient|patients !service|support|care",
    "other|another|last|previous callers|customers|clients|patients ~1 names|numbers|addresses|details|emails|data|information|records|accounts|appointments|messages|orders|bills",
    "other|another|last|previous caller's|customer's|client's|patient's ~1 name|names|number|numbers|address|addresses|phone|details|email|data|information|records|account|appointment|appointments|message|messages|order|orders|bill",
    "read|tell|give|show|list|play|share|what|what's ~4 someone|somebody|anyone|everyone|everybody else's ~1 appointment*|message*|number*|address*|phone|details|order*|account*|data|name*",
    "show|give|read|dump|export|list|tell|share|download ~3 customer|client|patient|caller database|list|records|data",
    "list|names|numbers|addresses|details of ~2 customers|clients|patients|callers",
    "list all ~2 customers|clients|patients|callers",
    "who else called|booked|phoned",
    "who else ~2 appointment",
    "who called|phoned|rang before|today|yesterday|earlier|you|here|in",
    "who ~3 called|spoke|talked ~4 before me|i",
    "what ~5 other|previous|earlier conversations|callers",
    "read|tell|give|play|repeat ~4 messages|message|voicemail* ~3 left|from|of|by other|others|people|callers|customers|everyone|somebody|someone",
    "card numbers|details of ~2 customers|customer|clients|others",
    "home|private|personal address|number|phone|cell|mobile ~1 of|for ~2 owner|boss|manager|employee*|staff|mechanic|doctor|dentist|technician",
    "owner's|boss's|manager's|mechanic's|doctor's|dentist's|technician's home|private|personal address|number|phone|cell",
    "where does|do ~2 owner|boss|manager|mechanic|doctor|dentist|receptionist live",
];

/// Errands that are none of a telephone attendant's.
const SCOPE: &[&str] = &[
    "write|compose|generate|create|make|tell|recite|sing ~3 poem|poems|essay|haiku|limerick|screenplay|sonnet|fairy",
    "write|generate|debug ~3 python|javascript|java|sql|html",
    "write ~1 code|program|script !down|on|in|for",
    "do|solve my|this|a ~1 homework|equation",
    "who ~2 i vote for",
    "vote for ~2 republican*|democrat*|president|party",
    "your political|religious opinion|opinions|views|view",
    "should ~1 i|we ~1 buy|sell|invest|short ~2 bitcoin|crypto|cryptocurrency|ethereum|stocks|shares",
    "how do|to|can|would|could|i|you ~3 make|build|cook|synthesize|construct|create ~3 bomb|explosive*|weapon|weapons|meth|methamphetamine|napalm|poison|cocaine|heroin|malware|virus",
    "how do|to|can|would|could ~3 hack|launder|counterfeit|forge",
    "meaning of life",
];

/// Fills the matcher: what matters most comes first.
pub(super) fn fill(matcher: &mut Matcher<Category>, topics: &[String], wanted: impl Fn(Category) -> bool) {
    for (category, patterns) in [
        (Category::Safety, SAFETY),
        (Category::Abuse, THREAT),
        (Category::PromptLeak, PROMPT_LEAK),
        (Category::Injection, INJECTION),
        (Category::OthersData, OTHERS_DATA),
        (Category::Scope, SCOPE),
    ] {
        if wanted(category) {
            matcher.add(category, patterns);
        }
    }
    if wanted(Category::Scope) {
        matcher.add_literal(Category::Scope, topics);
    }
}

/// Fills a matcher for texts that are data and must not give orders.
pub(super) fn fill_data(matcher: &mut Matcher<Category>, wanted: impl Fn(Category) -> bool) {
    for (category, patterns) in [
        (Category::Injection, INJECTION),
        (Category::PromptLeak, PROMPT_LEAK),
    ] {
        if wanted(category) {
            matcher.add(category, patterns);
        }
    }
}
