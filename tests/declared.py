"""A declaration with a field of every kind, personal ones and derived ones, as a source of online payments has them."""

from fraud_core.fields.declared import Declared

ONLINE = Declared.model_validate(
    {
        "fields": {
            "device": {"kind": "id", "meaning": "The device {value}"},
            "ip": {"kind": "id", "personal": True},
            "email": {"kind": "id", "personal": True},
            "income": {"kind": "number", "personal": True},
            "channel": {"kind": "category", "values": ["web", "app"], "required": True, "meaning": "The channel {value}"},
            "cvv": {"kind": "flag", "values": {"true": ["M", "Y"], "false": ["N"]}, "missing": ["", "NA"]},
            "opened": {"kind": "time"},
            "basket": {"kind": "number", "unit": "items", "lowest": 0, "highest": 1000, "meaning": "The basket of {value}"},
            "email_domain": {"from": {"part": "domain", "of": "email"}},
            "bin": {"from": {"first_digits": 6, "of": "card"}},
            "network": {"from": {"network": "24/48", "of": "ip"}, "kind": "id"},
            "account_age": {"from": {"hours_since": "opened"}},
            "above_income": {"from": {"difference": ["amount", "income"]}},
        }
    }
)
