package manifests

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	yamlv3 "go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
)

// TestTheSchemaKnowsTheDriversKeys: those of the table in the driver's README, but stateDir, which the
// installer has to be told too.
func TestTheSchemaKnowsTheDriversKeys(t *testing.T) {
	type object struct {
		Properties map[string]json.RawMessage
	}
	var schema struct {
		Properties struct{ Config object }
	}
	if err := json.Unmarshal([]byte(read(t, chartDirectory+"/values.schema.json")), &schema); err != nil {
		t.Fatal(err)
	}
	keys := append(slices.Collect(maps.Keys(schema.Properties.Config.Properties)), "stateDir")
	// The earlier name of hungAfterSeconds, which is still read.
	keys = slices.DeleteFunc(keys, func(key string) bool { return key == "abortHungAfterSeconds" })
	documented := firstColumn(t, "../../README.md", "## Node configuration")
	slices.Sort(keys)
	slices.Sort(documented)
	if !slices.Equal(keys, documented) {
		t.Errorf("the schema has\n%q, the README has\n%q", keys, documented)
	}
}

// TestThePackagedConfigurationIsTheDefault: every key that has a default, with the one in the README.
func TestThePackagedConfigurationIsTheDefault(t *testing.T) {
	var config map[string]json.RawMessage
	if err := json.Unmarshal([]byte(read(t, "../../packaging/config.json")), &config); err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `([A-Za-z]+)` \\| (.*?) \\|")
	for _, row := range rows.FindAllStringSubmatch(section(t, "../../README.md", "## Node configuration"), -1) {
		key, documented := row[1], strings.Trim(row[2], "`")
		packaged, there := config[key]
		if there && string(packaged) != documented || there != json.Valid([]byte(documented)) {
			t.Errorf("%s: the package has %s, the README %s", key, packaged, documented)
		}
		delete(config, key)
	}
	if len(config) > 0 {
		t.Errorf("not in the README: %q", slices.Collect(maps.Keys(config)))
	}
}

// TestVersionsAgree: one version for programs, image, chart and overlays.
func TestVersionsAgree(t *testing.T) {
	version := regexp.MustCompile(`(?m)^version = "(.*)"`).FindStringSubmatch(read(t, "../../Cargo.toml"))[1]
	for path, line := range map[string]string{
		"../../packaging/Dockerfile":    "ARG VERSION=" + version,
		chartDirectory + "/Chart.yaml":  "appVersion: " + version,
		deploy + "/base/daemonset.yaml": "        image: alicloud-oss-flexvolume:" + version,
	} {
		if !slices.Contains(strings.Split(read(t, path), "\n"), line) {
			t.Errorf("%s has not %q", path, line)
		}
	}
}

// TestTheInstallerKnowsItsVariables: each that a manifest sets is in the table of the installer's README.
func TestTheInstallerKnowsItsVariables(t *testing.T) {
	table := section(t, "../../installer/README.md", "## Options")
	for name, values := range chartValues {
		_, objects := mustRender(t, values)
		set, container := daemonSet(t, objects)
		variables := slices.Clone(container.Env)
		for _, first := range set.Spec.Template.Spec.InitContainers {
			variables = append(variables, first.Env...)
		}
		for _, variable := range variables {
			short, ours := strings.CutPrefix(variable.Name, "OSS_INSTALLER_")
			if !ours || !strings.Contains(table, "| `"+short+"` |") {
				t.Errorf("%s: %s is not in the table", name, variable.Name)
			}
		}
	}
}

// TestTheChartsTableIsItsValues: each value and its default is a row of the chart's README, in the order of
// values.yaml.
func TestTheChartsTableIsItsValues(t *testing.T) {
	var values yamlv3.Node
	if err := yamlv3.Unmarshal([]byte(read(t, chartDirectory+"/values.yaml")), &values); err != nil {
		t.Fatal(err)
	}
	var expected []string
	var add func(prefix string, node *yamlv3.Node)
	add = func(prefix string, node *yamlv3.Node) {
		for i := 0; i < len(node.Content); i += 2 {
			name, value := prefix+node.Content[i].Value, node.Content[i+1]
			structured := slices.Contains([]string{"image", "ossfsPackages", "networkPolicy", "test"}, name)
			if structured {
				add(name+".", value)
				continue
			}
			var data any
			if err := value.Decode(&data); err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(data)
			if err != nil {
				t.Fatal(err)
			}
			expected = append(expected, name+" "+string(text))
		}
	}
	add("", values.Content[0])
	var found []string
	rows := regexp.MustCompile("(?m)^\\| `([A-Za-z.]+)` \\| `(.*?)` \\|")
	for _, row := range rows.FindAllStringSubmatch(section(t, chartDirectory+"/README.md", "## Values"), -1) {
		found = append(found, row[1]+" "+row[2])
	}
	if difference := cmp.Diff(expected, found); difference != "" {
		t.Errorf("- values.yaml, + README.md:\n%s", difference)
	}
}

// TestTheDriverTakesTheConfiguration that the chart writes: asked of the driver itself, which OSS_DRIVER
// names.
func TestTheDriverTakesTheConfiguration(t *testing.T) {
	driver := os.Getenv("OSS_DRIVER")
	if driver == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("OSS_DRIVER is not set")
		}
		t.Skip("skipped: OSS_DRIVER names no driver")
	}
	directory := t.TempDir()
	state := filepath.Join(directory, "state")
	accepts := func(text string) (string, bool) {
		file := filepath.Join(directory, "config.json")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		// It has no volume to heal in that state directory.
		heal := exec.Command(driver, "heal")
		heal.Env = []string{"OSS_FLEXVOLUME_CONFIG=" + file}
		said, err := heal.CombinedOutput()
		return string(said), err == nil
	}
	every := `{ossfs: ossfs, logFile: ` + directory + `/log, logLevel: debug, launcher: auto,
		mountTimeoutSeconds: 3600, unmountTimeoutSeconds: 1, abortHungAfterSeconds: 60, shareMounts: false,
		defaultOptions: [max_stat_cache_size=10000], allowedOptions: [use_cache=/var/cache/oss/],
		allowedEndpoints: ["*.aliyuncs.com", "10.0.0.1", "*"],
		httpsProxy: "http://proxy.example:3128", noProxy: [".example", "10.0.0.1"], caBundle: /etc/ca.pem,
		finishTimeoutSeconds: 3600, seLinuxContext: "system_u:object_r:container_file_t:s0:c1,c2",
		nodeCredentials: {akIdFile: /etc/a, akSecretFile: /etc/b, ramRole: node-role, buckets: [docker, "*"]}}`
	for _, config := range []string{`{logFile: ` + directory + `/log}`, every} {
		_, objects := mustRender(t, "{stateDirectory: "+state+", config: "+config+"}")
		text := only[*corev1.ConfigMap](t, objects).Data["config.json"]
		if said, ok := accepts(text); !ok {
			t.Errorf("%s\nis refused: %s", text, said)
		}
	}
	if said, ok := accepts(`{"stateDirectory": "/x"}`); ok || !strings.Contains(said, "unknown field") {
		t.Errorf("a key that does not exist is taken: %s", said)
	}
}

// firstColumn returns the words in backquotes that begin the rows of the table under a heading.
func firstColumn(t *testing.T, path, heading string) []string {
	t.Helper()
	var words []string
	for _, match := range regexp.MustCompile("(?m)^\\| `([A-Za-z]+)` \\|").FindAllStringSubmatch(section(t, path, heading), -1) {
		words = append(words, match[1])
	}
	return words
}

// section returns the text of the file at path from a heading to the next one.
func section(t *testing.T, path, heading string) string {
	t.Helper()
	_, text, found := strings.Cut(read(t, path), "\n"+heading+"\n")
	if !found {
		t.Fatalf("%s has no %q", path, heading)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
