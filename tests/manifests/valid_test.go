package manifests

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
)

const (
	// The API server names these for flexVolumes, which the project is for, and for the AppArmor
	// annotation, which is for clusters before 1.30 alone.
	flexVolumeWarning = "deprecated in v1.23"
	appArmorWarning   = "deprecated since v1.30; use the \"appArmorProfile\" field instead"
)

// TestTheAPIServerTakesEveryObject: and warns of nothing but what is known and wanted.
func TestTheAPIServerTakesEveryObject(t *testing.T) {
	sources := map[string][]runtime.Object{}
	for _, shape := range shapes {
		sources["deploy/"+shape] = mustDecode(t, renderOverlay(t, shape))
		_, sources["chart/"+shape] = mustRender(t, "shape: "+shape)
	}
	for _, overlay := range []string{"remove", "full-before-1.30", "full-selinux"} {
		sources["deploy/"+overlay] = mustDecode(t, renderOverlay(t, overlay))
	}
	old, err := renderChartFor("v1.29.9", "shape: full")
	if err != nil {
		t.Fatal(err)
	}
	sources["chart for 1.29"] = mustDecode(t, old.manifests)
	annotated := []string{"deploy/remove", "deploy/full-before-1.30", "chart for 1.29"}
	for name, values := range chartValues {
		_, sources["chart with "+name] = mustRender(t, values)
	}
	for _, path := range exampleFiles(t) {
		sources[path] = readObjects(t, path)
	}
	for source, objects := range sources {
		for _, object := range objects {
			name := source + " " + object.GetObjectKind().GroupVersionKind().Kind + " " + object.(metav1.Object).GetName()
			t.Run(name, func(t *testing.T) {
				problems, warnings := validate(object)
				for _, problem := range problems {
					t.Error(problem)
				}
				for _, warning := range warnings {
					ofAppArmor := strings.Contains(warning, appArmorWarning) && slices.Contains(annotated, source)
					if !strings.Contains(warning, flexVolumeWarning) && !ofAppArmor {
						t.Error("warning:", warning)
					}
				}
			})
		}
	}
}

// TestWhatIsWrongIsSeen: the checks above can fail.
func TestWhatIsWrongIsSeen(t *testing.T) {
	text := renderOverlay(t, "minimal")
	for _, c := range []struct{ old, new, expected string }{
		{"readOnlyRootFilesystem", "readonlyRootFilesystem", "unknown field \"spec.template.spec.containers[0].securityContext.readonlyRootFilesystem\""},
		{"enableServiceLinks: false", "enableServiceLinks: false\n      enableServiceLinks: true", "key \"enableServiceLinks\" already set"},
		{"memory: 8Mi", "memory: 32Mi", "must be less than or equal to memory limit"},
		{"mountPath: /run/alicloud-oss", "mountPath: /usr/libexec/kubernetes/kubelet-plugins/volume/exec", "must be unique"},
		{"operator: Exists", "operator: Equal", "operator must be Exists when `key` is empty"},
	} {
		if !bytes.Contains(text, []byte(c.old)) {
			t.Fatalf("%q is not in\n%s", c.old, text)
		}
		objects, err := decode(bytes.Replace(text, []byte(c.old), []byte(c.new), 1))
		found := ""
		if err != nil {
			found = err.Error()
		}
		for _, object := range objects {
			problems, _ := validate(object)
			if len(problems) > 0 {
				found += problems.ToAggregate().Error()
			}
		}
		if !strings.Contains(found, c.expected) {
			t.Errorf("%s: found %q, %q is expected", c.new, found, c.expected)
		}
	}
}

// TestHelmsOwnLintFindsNothing: but the icon, which a program for nodes has no use for.
func TestHelmsOwnLintFindsNothing(t *testing.T) {
	for _, shape := range shapes {
		found := lint.RunAll(chartDirectory, map[string]any{"shape": shape}, "kube-system")
		for _, message := range found.Messages {
			if message.Severity > support.InfoSev || !strings.Contains(message.Error(), "icon") {
				t.Errorf("%s: %s", shape, message)
			}
		}
	}
}

func exampleFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(examples, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples in %s: %v", examples, err)
	}
	slices.Sort(files)
	return files
}
