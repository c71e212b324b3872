// What a failed build means: try another host, give up, or nothing because the instance is gone (section 5.2, R1 to R3).
import { asError, AppError, messageOf } from '#src/lib/errors.ts';
import { isNova, NovaException, novaException, type NovaExceptionName } from '#src/nova/exceptions.ts';
import { RemoteError } from '#src/messaging/errors.ts';

export type BuildFailure =
  | { readonly kind: 'gone'; readonly error: unknown }
  | { readonly kind: 'abort'; readonly error: NovaException }
  | {
      readonly kind: 'reschedule';
      readonly error: NovaException;
      readonly reason: string;
      /** The policy of a server group: not a failure of this host. */
      readonly isByPolicy: boolean;
    };

/** Where the failure happened, when that decides more than what it was. */
export type BuildStage = 'network' | 'other';

/** The exceptions after which no other host is tried. */
const FATAL: readonly NovaExceptionName[] = [
  'FlavorDiskTooSmall',
  'FlavorMemoryTooSmall',
  'ImageNotActive',
  'ImageUnacceptable',
  'InvalidDiskInfo',
  'InvalidDiskFormat',
  'CertificateValidationFailed',
  'InvalidInput',
  'RequestedVRamTooHigh',
  'InvalidBDM',
  'InstanceUnacceptable',
];

const FATAL_OF_NETWORK: readonly NovaExceptionName[] = [
  'ExternalNetworkAttachForbidden',
  'VirtualInterfaceCreateException',
  'VirtualInterfacePlugException',
  'FixedIpInvalidOnHost',
  'UnableToAutoAllocateNetwork',
  'NetworksWithQoSPolicyNotSupported',
];

export function isGone(error: unknown): boolean {
  return isNova(error, 'InstanceNotFound', 'UnexpectedDeletingTaskStateError');
}

export function classify(error: unknown, instanceUuid: string, stage: BuildStage = 'other'): BuildFailure {
  const abort = (reason: string): BuildFailure => ({
    kind: 'abort',
    error: novaException('BuildAbortException', { instance_uuid: instanceUuid, reason }, { cause: error }),
  });
  if (isGone(error)) return { kind: 'gone', error };
  if (error instanceof NovaException && isNova(error, 'BuildAbortException')) return { kind: 'abort', error };
  if (isNova(error, 'NoMoreFixedIps')) {
    return abort(`Failed to allocate the network(s) with error ${shownText(error)}, not rescheduling.`);
  }
  if (isNova(error, ...FATAL_OF_NETWORK) || (stage === 'network' && !isNova(error, 'UnexpectedTaskStateError'))) {
    return abort('Failed to allocate the network(s), not rescheduling.');
  }
  if (isNova(error, 'UnexpectedTaskStateError', ...FATAL)) return abort(shownText(error));
  return reschedule(error, instanceUuid);
}

function reschedule(error: unknown, instanceUuid: string): BuildFailure {
  const reason = shownText(error);
  const isByPolicy = isNova(error, 'GroupAffinityViolation');
  const params = { instance_uuid: instanceUuid, reason };
  return {
    kind: 'reschedule',
    reason,
    isByPolicy,
    error: novaException('RescheduledException', params, { cause: error }),
  };
}

/** Errors that somebody worded for a reader are shown; of others the owner of the instance learns the class only. */
function shownText(error: unknown): string {
  if (error instanceof RemoteError) return error.remoteMessage;
  return error instanceof AppError ? messageOf(error) : asError(error).name;
}

/** As Python's traceback.format_exception: a list of lines, for filter_properties.retry.exc. */
export function tracebackOf(error: unknown): readonly string[] {
  const { stack, cause } = asError(error);
  const lines = (stack ?? messageOf(error)).split('\n').map((line) => `${line}\n`);
  return cause === undefined ? lines : [...tracebackOf(cause), '\nThe above exception was the cause of:\n\n', ...lines];
}
