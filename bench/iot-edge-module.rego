# The checks of policies/iot-edge-module.yaml on one push, as somebody would write them in Rego.
package iot

import rego.v1

required := {"linux/amd64", "linux/arm64", "linux/arm/v7"}

# Version tags, and the version that a per-platform tag belongs to.
numbers(text) := [to_number(part) | some part in split(text, ".")] if {
	parts := split(text, ".")
	count(parts) == 3
	every part in parts { format_int(to_number(part), 10) == part }
}

base(tag) := split(tag, "-")[0]

versions := {tag: numbers(tag) | some tag, _ in input.tags; numbers(tag)}

highest := max([[n, tag] | some tag, n in versions])[1]

before := max([[n, tag] | some tag, n in versions; n < versions[input.pushed]])[1]

# The version pushed, and the one before it, which is the highest no more.
judged := {input.pushed, before}

variant(p) := "" if {
	p.architecture == "arm64"
	object.get(p, "variant", "") in {"", "8", "v8"}
} else := "v7" if {
	p.architecture == "arm"
	object.get(p, "variant", "") in {"", "7", "v7"}
} else := object.get(p, "variant", "")

name(p) := concat("/", [part | some part in [p.os, p.architecture, variant(p)]; part != ""])

entries(digest) := [e | some e in object.get(input.manifests[digest], "manifests", []); e.platform.os != "unknown"]

own(entry) := input.configs[input.manifests[entry.digest].config.digest]

platforms(digest) := {name(own(e)) | some e in entries(digest)}

intact(digest) if {
	every e in entries(digest) {
		input.sizes[e.digest] == e.size
		name(own(e)) == name(e.platform)
		object.get(own(e), "os.version", "") == object.get(e.platform, "os.version", "")
	}
}

suffixes := {
	"linux/amd64": "linux-amd64", "linux/arm64": "linux-arm64v8", "linux/arm/v7": "linux-arm32v7",
	"linux/arm/v6": "linux-arm32v6", "linux/386": "linux-386", "linux/ppc64le": "linux-ppc64le",
	"linux/s390x": "linux-s390x", "linux/riscv64": "linux-riscv64",
}

builds := {"10.0.17763": "windows-amd64-1809", "10.0.20348": "windows-amd64-ltsc2022"}

suffix(p) := builds[concat(".", array.slice(split(p["os.version"], "."), 0, 3))] if {
	p.os == "windows"
} else := suffixes[name(p)]

rolling(tag) if tag == "latest"

rolling(tag) if tag == base(input.pushed)

rolling(tag) if {
	parts := split(tag, ".")
	count(parts) < 3
	parts == array.slice(split(input.pushed, "."), 0, count(parts))
}

deny contains [tag, "moved"] if {
	some tag in judged | per_platform
	some seen in input.tags[tag].history
	seen != input.tags[tag].current
}

deny contains [tag, "index"] if {
	some tag in judged | {"latest"}
	not input.manifests[input.tags[tag].current].manifests
}

deny contains [tag, "platforms", platform] if {
	some tag in judged | {"latest"}
	some platform in required - platforms(input.tags[tag].current)
}

deny contains [tag, "intact"] if {
	some tag in judged | {"latest"}
	not intact(input.tags[tag].current)
}

deny contains [input.pushed, "keepsPlatforms", platform] if {
	some platform in platforms(input.tags[before].current) - platforms(input.tags[input.pushed].current)
}

deny contains [version, "membersTagged", suffix(e.platform)] if {
	some version in judged
	some e in entries(input.tags[version].current)
	tag := concat("-", [version, suffix(e.platform)])
	object.get(input.tags, tag, {"current": ""}).current != e.digest
}

deny contains [tag, "follows"] if {
	some tag, record in input.tags
	not contains(tag, "-")
	rolling(tag)
	tag != input.pushed
	record.current != input.tags[highest].current
}

per_platform := {tag | some tag, _ in input.tags; startswith(tag, concat("", [input.pushed, "-"]))}

deny contains [tag, "memberOf"] if {
	some tag in per_platform
	listed := {e.digest: e | some e in entries(input.tags[base(tag)].current)}
	not member(tag, listed)
}

member(tag, listed) if {
	e := listed[input.tags[tag].current]
	tag == concat("-", [base(tag), suffix(e.platform)])
	name(own(e)) == name(e.platform)
}

expected if count(versions) > 0
