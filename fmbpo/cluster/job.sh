#!/usr/bin/env bash
# A job of $name, as `fmbpo submit` wrote it. It does the run in line SLURM_ARRAY_TASK_ID of the file
# that is its argument, or the report if there is none. By hand:
#
#   SLURM_ARRAY_TASK_ID=1 $script $jobs/$name-1.txt
#
# fmbpo exits with 75 when it has saved and wants to continue: the job is then queued again.
$setup
if [ $$# = 0 ]; then
  $report
  exit
fi

run=$$(sed -n "$${SLURM_ARRAY_TASK_ID}p" "$$1")
# SLURM_JOB_ID may stand for the whole array.
job=$${SLURM_ARRAY_JOB_ID:-}_$$SLURM_ARRAY_TASK_ID
attempts=$jobs/attempts/$$run.txt
[ "$${SLURM_JOB_NUM_NODES:-1}" = 1 ] || attempts=/dev/null

# An attempt that did not write its end went down with its node. (Of several, any may have failed:
# those attempts are not recorded.)
failed=$$(awk '/^begin/ { count[node]++; node = $$2 } /^end/ { node = "" }
              END { count[node]++; for (n in count) if (n != "" && count[n] >= $failures) print n }' \
         "$$attempts" 2>/dev/null | paste -sd,)
if [[ ,$$failed, == *,$${SLURMD_NODENAME:-},* && -n $$failed ]]; then
  echo "$$SLURMD_NODENAME has failed $failures times: the job goes to another node"
  trap '' TERM  # which the next line brings
  scontrol requeue "$$job" && scontrol update JobId="$$job" ExcNodeList="$$failed"
  exit 75
fi
echo "begin $${SLURMD_NODENAME:-$$HOSTNAME} $$job $$(date +%FT%T)" >>"$$attempts"

# SLURM warns this shell alone of the time limit, but sends SIGTERM to every process.
terminated= child=
warn() { warned=1; [ -z "$$child" ] || kill -USR1 "$$child"; }
trap warn USR1 USR2
trap 'terminated=1' TERM
$run --only "$$run" &
child=$$!
[ -z "$${warned:-}" ] || kill -USR1 "$$child"
while wait "$$child"; status=$$?; kill -0 "$$child" 2>/dev/null; do :; done
if [ "$$status" -gt 128 ]; then  # perhaps that of a signal that came as fmbpo ended
  wait "$$child"; again=$$?
  if [ "$$again" -ge 0 ] && [ "$$again" -lt 128 ]; then status=$$again; fi  # bash may not know it
fi
# 143: fmbpo could not answer SIGTERM yet, or bash does not know how it did.
if [ -n "$$terminated" ] && [ "$$status" = 143 ]; then status=75; fi
echo "end $$status" >>"$$attempts"

# 138 and 140: a warning before fmbpo could answer. After SIGTERM, SLURM knows itself what follows.
case $$status in
  75 | 138 | 140) [ -n "$$terminated" ] || scontrol requeue "$$job" ;;
esac
exit "$$status"
