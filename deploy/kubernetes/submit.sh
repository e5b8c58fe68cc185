#!/usr/bin/env bash
# Train a recipe on Kubernetes: an Indexed Job of N pods, one a host, and the headless service by
# which they find the first.
#
#   deploy/kubernetes/submit.sh --image IMAGE --claim PVC [--hosts 1] [--gpus G] [--ranks R] \
#       [--cpus 8] [--memory 32Gi] [--name headrace] [--namespace NS] [--dry-run] RECIPE key=value ...
#
# --claim: a volume claim that all pods can mount (ReadWriteMany), at /data: the data and output= lie
# there. --gpus: GPUs of a pod. --ranks: processes of the whole run (default: a rank for each GPU, or
# one for each pod). A pod that fails fails the job, which ends all pods; delete the job, and the same
# command continues the run. --dry-run prints the manifest.
set -euo pipefail
. "$(dirname "$0")/../lib.sh"
image='' claim='' hosts=1 gpus=0 ranks='' cpus=8 memory=32Gi name=headrace namespace='' dry_run=0
while [ $# -gt 0 ]; do
  case "$1" in
    --image) image=${2-}; shift 2 || die "$1 needs a value" ;;
    --claim) claim=${2-}; shift 2 || die "$1 needs a value" ;;
    --hosts) hosts=${2-}; shift 2 || die "$1 needs a value" ;;
    --gpus) gpus=${2-}; shift 2 || die "$1 needs a value" ;;
    --ranks) ranks=${2-}; shift 2 || die "$1 needs a value" ;;
    --cpus) cpus=${2-}; shift 2 || die "$1 needs a value" ;;
    --memory) memory=${2-}; shift 2 || die "$1 needs a value" ;;
    --name) name=${2-}; shift 2 || die "$1 needs a value" ;;
    --namespace) namespace=${2-}; shift 2 || die "$1 needs a value" ;;
    --dry-run) dry_run=1; shift ;;
    --help) help; exit 0 ;;
    --*) die "unknown option $1 (see --help)" ;;
    *) break ;;
  esac
done
need "$image" --image 'the trainer image (deploy/trainer/build.sh)'
need "$claim" --claim 'a volume claim that all pods can mount'
[[ "$hosts" =~ ^[1-9][0-9]*$ ]] || die "--hosts $hosts: give a whole number, 1 or more"
[[ "$gpus" =~ ^[0-9]+$ ]] || die "--gpus $gpus: give a whole number"
[[ "$name" =~ ^[a-z]([a-z0-9-]{0,50}[a-z0-9])?$ ]] \
  || die "--name $name: give lower-case letters, digits and dashes, 52 at most, a letter first"
[ $# -gt 0 ] || die 'no recipe: give RECIPE key=value ... (see trainer plan)'
[ -n "$ranks" ] || ranks=$((hosts * (gpus > 0 ? gpus : 1)))

# string TEXT: as a YAML string in double quotes. "$$" is Kubernetes' escape for "$" in arguments.
string() {
  local text=${1//\\/\\\\}
  text=${text//\"/\\\"}
  text=${text//$'\n'/\\n}
  printf '"%s"' "$text"
}
arguments=''
for word in launch "$@" --ranks "$ranks" --hosts "$hosts"; do
  arguments+="            - $(string "${word//\$/\$\$}")"$'\n'
done

manifest() {
  cat <<YAML
apiVersion: v1
kind: Service
metadata:
  name: $name
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    job-name: $name
---
apiVersion: batch/v1
kind: Job
metadata:
  name: $name
  labels:
    app.kubernetes.io/name: headrace
spec:
  completionMode: Indexed
  completions: $hosts
  parallelism: $hosts
  backoffLimit: 0
  template:
    metadata:
      labels:
        app.kubernetes.io/name: headrace
    spec:
      subdomain: $name
      restartPolicy: Never
      terminationGracePeriodSeconds: 120
      containers:
        - name: trainer
          image: $(string "$image")
          args:
${arguments}            - "--host-index"
            - "\$(HOST_INDEX)"
            - "--master"
            - "$name-0.$name:29500"
          env:
            - name: HOST_INDEX
              valueFrom:
                fieldRef:
                  fieldPath: metadata.annotations['batch.kubernetes.io/job-completion-index']
          resources:
            limits:
              cpu: $(string "$cpus")
              memory: $(string "$memory")
              nvidia.com/gpu: $gpus
          volumeMounts:
            - name: data
              mountPath: /data
            - name: shared-memory
              mountPath: /dev/shm
      volumes:
        - name: data
          persistentVolumeClaim:
            claimName: $(string "$claim")
        - name: shared-memory
          emptyDir:
            medium: Memory
YAML
}
if [ "$dry_run" = 1 ]; then
  manifest
else
  manifest | kubectl ${namespace:+--namespace "$namespace"} apply --filename -
fi
