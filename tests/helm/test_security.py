"""What every pod may do: nothing that it does not need (Pod Security Standards, `restricted`)."""

from __future__ import annotations

from tests.helm.rendered import Rendered, walk

# kubernetes.io/docs/concepts/security/pod-security-standards, version 1.29
SAFE_SYSCTLS = {"net.ipv4.ip_local_reserved_ports"}
VOLUMES = {"emptyDir", "secret", "persistentVolumeClaim", "projected", "configMap"}
# Of Ray's own, which lie among the ports of connections that go out.
AMONG_OTHERS = {44217, 44227, 52365}


def test_no_pod_has_rights(rendered: Rendered) -> None:
    for pod in rendered.pods:
        security = pod.spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {each["name"] for each in security.get("sysctls", ())} <= SAFE_SYSCTLS
        for word in ("hostNetwork", "hostPID", "hostIPC"):
            assert not pod.spec.get(word)
    containers = [each for pod in rendered.pods for each in pod.containers]
    if options := rendered.cluster.get("autoscalerOptions"):
        containers.append(options)
    for container in containers:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_volumes_are_of_the_kinds_that_are_safe(rendered: Rendered) -> None:
    asked = rendered.values.get("ledger", {}).get("volume", {}).get("hostPath")
    for pod in rendered.pods:
        for volume in pod.spec["volumes"]:
            kinds = volume.keys() - {"name"}
            if volume.get("hostPath", {}).get("path") == asked and asked:
                continue
            assert kinds <= VOLUMES, (pod.name, volume)


def test_every_folder_that_is_written_is_a_volume(rendered: Rendered) -> None:
    for pod in rendered.ray_pods:
        paths = {mount["mountPath"] for mount in pod.main["volumeMounts"]}
        assert {"/tmp", "/tmp/ray", "/dev/shm", "/home/serving", "/var/log/serving"} <= paths
        assert pod.env("HOME") == "/home/serving"
    (router,) = rendered.of("router")
    assert router.env("SERVING_SPOOL_DIR") == "/var/tmp"


def test_only_the_head_talks_to_kubernetes(rendered: Rendered) -> None:
    scales = rendered.cluster["enableInTreeAutoscaling"]
    for pod in rendered.pods:
        assert pod.spec["automountServiceAccountToken"] is (pod.component == "head" and scales)
    accounts = rendered.kind("ServiceAccount")
    for name, account in accounts.items():
        assert account["automountServiceAccountToken"] is (name.endswith("-head") and scales)
    for kind in ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"):
        assert not rendered.kind(kind)


def test_no_secret_stands_in_a_pod(rendered: Rendered) -> None:
    made = [value for each in rendered.kind("Secret").values() for value in each["data"].values()]
    for pod in rendered.pods:
        for each in walk(pod.spec):
            name = each.get("name")
            if isinstance(name, str) and name.endswith(("_KEY", "_TOKEN", "_URL")):
                # A file's name is no secret; the test pod's URL has none in it.
                shown = each.get("value", "sqlite:")
                assert shown.startswith(("sqlite:", "http://")), name
    assert len(set(made)) == len(made)


def test_the_first_key_is_an_administrators(rendered: Rendered) -> None:
    import base64

    from serving.accounts.caller import Role
    from serving.accounts.listed import entry_of, read_keys

    made = [each["data"] for each in rendered.kind("Secret").values() if "keys" in each["data"]]
    if rendered.values.get("secrets", {}).get("apiKeys"):
        assert not made
        return
    (data,) = made
    text, caller = (base64.b64decode(data[name]).decode() for name in ("keys", "caller"))
    (entry,), _ = read_keys(text)
    assert (entry.digest, entry.caller.role) == (entry_of(caller, None).digest, Role.ADMIN)


def test_ports_of_rays_own_are_kept_free(rendered: Rendered) -> None:
    for pod in rendered.ray_pods:
        (sysctl,) = pod.spec["securityContext"]["sysctls"]
        assert {int(each) for each in sysctl["value"].split(",")} == AMONG_OTHERS
        ports = {int(value) for name, value in pod.start.items() if name.endswith("port")}
        ports |= set(pod.ports.values())
        assert {port for port in ports if 32768 <= port <= 60999} <= AMONG_OTHERS


def test_the_dashboard_is_no_service_of_ours(rendered: Rendered) -> None:
    # Those of load tests have the pods of their jobs, and one port.
    for name, service in rendered.kind("Service").items():
        assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
        assert [port["port"] for port in service["spec"]["ports"]] == [7000]
    (port,) = rendered.service["spec"]["serveService"]["spec"]["ports"]
    assert port["targetPort"] == "serve"
