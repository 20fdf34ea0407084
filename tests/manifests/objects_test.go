package manifests

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	_ "k8s.io/kubernetes/pkg/apis/networking/install"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	"k8s.io/kubernetes/pkg/capabilities"
)

// An API server that allows no privileged containers at all (--allow-privileged) is not for DaemonSets.
func init() { capabilities.Setup(true, 0) }

// strict decodes what the API server decodes, and fails where that only warns: at fields that do not
// exist, and at those given twice.
var strict = serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict).UniversalDeserializer()

// decode returns the objects in the YAML documents of text, with the defaults that the API server
// fills in and as kubectl would send them to the namespace default.
func decode(text []byte) ([]runtime.Object, error) {
	var objects []runtime.Object
	documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		object, _, err := strict.Decode(document, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("%w in\n%s", err, document)
		}
		legacyscheme.Scheme.Default(object)
		meta := object.(metav1.Object)
		if _, global := object.(*corev1.PersistentVolume); !global && meta.GetNamespace() == "" {
			meta.SetNamespace("default")
		}
		objects = append(objects, object)
	}
}

// mustDecode is decode for text that is right.
func mustDecode(t *testing.T, text []byte) []runtime.Object {
	t.Helper()
	objects, err := decode(text)
	if err != nil {
		t.Fatal(err)
	}
	if len(objects) == 0 {
		t.Fatal("there is no object in it")
	}
	return objects
}

// readObjects returns the objects in the file at path.
func readObjects(t *testing.T, path string) []runtime.Object {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return mustDecode(t, text)
}

// validate returns what the API server has against the creation of object, and what it warns of.
func validate(object runtime.Object) (field.ErrorList, []string) {
	internal, err := legacyscheme.Scheme.UnsafeConvertToVersion(object.DeepCopyObject(), runtime.InternalGroupVersioner)
	if err != nil {
		return field.ErrorList{field.InternalError(nil, err)}, nil
	}
	ctx := context.Background()
	template := func(template *core.PodTemplateSpec) (corevalidation.PodValidationOptions, []string) {
		path := field.NewPath("spec", "template")
		return pod.GetValidationOptionsFromPodTemplate(template, nil),
			pod.GetWarningsForPodTemplate(ctx, path, template, nil)
	}
	switch o := internal.(type) {
	case *apps.DaemonSet:
		options, warnings := template(&o.Spec.Template)
		return appsvalidation.ValidateDaemonSet(o, options), warnings
	case *apps.Deployment:
		options, warnings := template(&o.Spec.Template)
		return appsvalidation.ValidateDeployment(o, options), warnings
	case *core.Pod:
		options := pod.GetValidationOptionsFromPodSpecAndMeta(&o.Spec, nil, &o.ObjectMeta, nil)
		options.ResourceIsPod = true
		return corevalidation.ValidatePodCreate(o, options), pod.GetWarningsForPod(ctx, o, nil)
	case *core.PersistentVolume:
		return corevalidation.ValidatePersistentVolume(o, corevalidation.ValidationOptionsForPersistentVolume(o, nil)), nil
	case *core.PersistentVolumeClaim:
		return corevalidation.ValidatePersistentVolumeClaim(o, corevalidation.ValidationOptionsForPersistentVolumeClaimCreate()), nil
	case *core.Secret:
		return corevalidation.ValidateSecret(o), nil
	case *core.ConfigMap:
		return corevalidation.ValidateConfigMap(o), nil
	case *networking.NetworkPolicy:
		return networkingvalidation.ValidateNetworkPolicy(o, networkingvalidation.NetworkPolicyValidationOptions{}), nil
	case *core.ServiceAccount:
		return corevalidation.ValidateServiceAccount(o), nil
	default:
		return field.ErrorList{field.InternalError(nil, fmt.Errorf("%T is not known here", o))}, nil
	}
}

// only returns the one object of its type among objects.
func only[T runtime.Object](t *testing.T, objects []runtime.Object) T {
	t.Helper()
	var found []T
	for _, object := range objects {
		if one, ok := object.(T); ok {
			found = append(found, one)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d objects of type %T, one is expected", len(found), *new(T))
	}
	return found[0]
}

// daemonSet returns the DaemonSet among objects, and its only container.
func daemonSet(t *testing.T, objects []runtime.Object) (*appsv1.DaemonSet, *corev1.Container) {
	t.Helper()
	set := only[*appsv1.DaemonSet](t, objects)
	if count := len(set.Spec.Template.Spec.Containers); count != 1 {
		t.Fatalf("%d containers, one is expected", count)
	}
	return set, &set.Spec.Template.Spec.Containers[0]
}
