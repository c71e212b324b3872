// Nova's exceptions that a compute raises or recognises: HTTP code and text (nova-compute-contract appendix D.2).
/* oxlint-disable max-lines -- a data table */

export interface ExceptionDefinition {
  /** Travels as kwargs.code; the API answers with it. */
  readonly code: number;
  /** `{name}` is filled from the parameters. */
  readonly message: string;
  /** The class it derives from, where somebody catches the base. */
  readonly extends?: string;
}

export const exceptionTable = {
  // A capability that this driver has not, or arguments that do not fit
  AttachInterfaceNotSupported: {
    code: 400,
    message: 'Interfaces cannot be attached to instance {instance_uuid} on this host',
  },
  NetworkInterfaceTaggedAttachNotSupported: {
    code: 400,
    message: 'Attaching an interface with a tag is not supported on this host',
  },
  InterfaceAttachFailed: { code: 500, message: 'Failed to attach a network interface to instance {instance_uuid}' },
  InterfaceAttachFailedNoNetwork: {
    code: 400,
    message: 'No network was given, and none is available to project {project_id}',
  },
  InterfaceDetachFailed: { code: 400, message: 'Failed to detach a network interface from instance {instance_uuid}' },
  VolumeTaggedAttachNotSupported: {
    code: 400,
    message: 'Attaching a volume with a tag is not supported on this host',
  },
  MultiattachNotSupportedByVirtDriver: {
    code: 400,
    message: 'Volume {volume_id} is multiattach, which this host does not support',
  },
  ExtendVolumeNotSupported: { code: 400, message: 'Extending an attached volume is not supported on this host' },
  InstanceQuiesceNotSupported: { code: 400, message: 'Instance {instance_id} cannot be quiesced' },
  SetAdminPasswdNotSupported: { code: 400, message: 'Setting the administrator password is not supported' },
  InstancePasswordSetFailed: {
    code: 500,
    message: 'Failed to set the administrator password on {instance}: {reason}',
  },
  ConsoleTypeInvalid: { code: 400, message: 'Invalid console type {console_type}' },
  ConsoleTypeUnavailable: { code: 400, message: 'Console type {console_type} is not available' },
  ConsoleNotAvailable: { code: 404, message: 'The guest has no console available' },
  SocketPortRangeExhaustedException: { code: 500, message: 'Not able to acquire a free port for {host}' },
  InstanceNotReady: { code: 400, message: 'Instance {instance_id} is not ready' },
  InstanceNotRunning: { code: 400, message: 'Instance {instance_id} is not running' },
  InstanceInvalidState: {
    code: 400,
    message: 'Instance {instance_uuid} has {attr} {state}: {method} is not possible in this state',
  },
  InstanceNotRescuable: { code: 400, message: 'Instance {instance_id} cannot be rescued: {reason}' },
  InstanceRebootFailure: { code: 400, message: 'Failed to reboot the instance: {reason}' },
  InstanceSuspendFailure: { code: 400, message: 'Failed to suspend the instance: {reason}' },
  InstanceResumeFailure: { code: 400, message: 'Failed to resume the instance: {reason}' },
  InstanceTerminationFailure: { code: 400, message: 'Failed to terminate the instance: {reason}' },
  InvalidVolume: { code: 400, message: 'Invalid volume: {reason}' },
  InvalidDevicePath: { code: 400, message: 'The supplied device path ({path}) is invalid' },
  DevicePathInUse: { code: 409, message: 'The device path {path} is already in use' },
  TooManyDiskDevices: { code: 403, message: 'At most {maximum} disk devices can be attached to one instance' },
  InvalidInput: { code: 400, message: 'Invalid input: {reason}' },
  InvalidMigrationState: {
    code: 400,
    message: 'Migration {migration_id} of instance {instance_uuid} is {state}: {method} is not possible in this state',
  },
  InstanceEvacuateNotSupported: { code: 400, message: 'Evacuation is not supported on this host' },
  PreserveEphemeralNotSupported: { code: 400, message: 'Preserving ephemeral disks is not supported on this host' },
  InvalidConfiguration: { code: 400, message: 'Invalid configuration: {reason}' },
  HypervisorUnavailable: { code: 500, message: 'The container engine is not available: {reason}' },

  // Moves
  MigrationError: { code: 500, message: 'Migration error: {reason}' },
  MigrationPreCheckError: { code: 500, message: 'Migration pre-check error: {reason}', extends: 'MigrationError' },
  UnableToMigrateToSelf: { code: 400, message: 'Cannot migrate instance {instance_id} to its own host {host}' },
  ResizeError: { code: 500, message: 'Resize error: {reason}' },
  InstancePowerOffFailure: { code: 400, message: 'Failed to power off the instance: {reason}' },
  InstanceExists: { code: 500, message: 'Instance {name} already exists' },
  ComputeResourcesUnavailable: { code: 400, message: 'Insufficient compute resources: {reason}' },
  GroupAffinityViolation: { code: 500, message: 'The {policy} policy of the server group would be violated' },
  RescheduledException: { code: 500, message: 'Build of instance {instance_uuid} was re-scheduled: {reason}' },
  NoValidHost: { code: 500, message: 'No valid host was found: {reason}' },
  MaxRetriesExceeded: {
    code: 500,
    message: 'No more hosts to try: {reason}',
    extends: 'NoValidHost',
  },

  // Build
  BuildAbortException: { code: 500, message: 'Build of instance {instance_uuid} aborted: {reason}' },
  InstanceDeployFailure: { code: 400, message: 'Failed to deploy the instance: {reason}' },
  InstanceUnacceptable: { code: 400, message: 'Instance {instance_id} is unacceptable: {reason}' },
  FlavorDiskSmallerThanImage: {
    code: 500,
    message:
      "Flavor's disk is too small for requested image. Flavor disk is {flavor_size} bytes, image is {image_size} bytes.",
    extends: 'FlavorDiskTooSmall',
  },
  FlavorDiskTooSmall: { code: 500, message: 'The disk of the flavor is too small for the image' },
  FlavorMemoryTooSmall: { code: 500, message: 'The memory of the flavor is too small for the image' },
  ImageNotFound: { code: 404, message: 'Image {image_id} could not be found' },
  ImageNotActive: { code: 500, message: 'Image {image_id} is not active' },
  ImageUnacceptable: { code: 400, message: 'Image {image_id} is unacceptable: {reason}' },
  InvalidDiskFormat: { code: 400, message: 'Disk format {disk_format} is not acceptable' },
  InvalidDiskInfo: { code: 400, message: 'Invalid disk information: {reason}' },
  InvalidBDM: { code: 400, message: 'The block device mapping is invalid: {reason}' },
  StorageError: { code: 500, message: 'Storage error: {reason}' },
  VirtualInterfaceCreateException: { code: 500, message: 'Creating a virtual interface failed' },
  VirtualInterfacePlugException: { code: 500, message: 'Plugging a virtual interface failed' },
  RequestedVRamTooHigh: { code: 500, message: 'The requested video memory {req_vram} exceeds {max_vram}' },
  CertificateValidationFailed: {
    code: 500,
    message: 'The image signature certificate {cert_uuid} could not be validated: {reason}',
  },
  ConfigDriveInvalidValue: { code: 400, message: 'Invalid value of config_drive: {option}' },
  ConfigDriveUnknownFormat: { code: 500, message: 'Unknown config drive format {format}' },

  // Network
  NetworkNotFound: { code: 404, message: 'Network {network_id} could not be found' },
  PortNotFound: { code: 404, message: 'Port {port_id} could not be found' },
  PortNotUsable: { code: 400, message: 'Port {port_id} cannot be used by instance {instance}' },
  PortInUse: { code: 400, message: 'Port {port_id} is still in use' },
  PortBindingFailed: { code: 400, message: 'Binding failed for port {port_id}, see the logs of Neutron' },
  PortLimitExceeded: { code: 413, message: 'The port quota is exceeded' },
  PortRequiresFixedIP: { code: 400, message: 'Port {port_id} needs a fixed address' },
  FixedIpAlreadyInUse: {
    code: 500,
    message: 'Fixed address {address} is already in use, instance {instance_uuid} cannot have it',
  },
  FixedIpInvalidOnHost: { code: 400, message: 'The fixed address of port {port_id} is not valid on this host' },
  FixedIpNotFoundForInstance: {
    code: 404,
    message: 'Instance {instance_uuid} has no fixed address {ip}',
  },
  NoMoreFixedIps: { code: 500, message: 'No fixed addresses are left in network {net}' },
  NetworkAmbiguous: { code: 400, message: 'More than one network is possible: name the one to use' },
  ExternalNetworkAttachForbidden: {
    code: 403,
    message: 'Attaching to the external network {network_uuid} is not allowed',
  },
  UnableToAutoAllocateNetwork: {
    code: 400,
    message: 'No network could be allocated automatically for project {project_id}',
  },
  NetworksWithQoSPolicyNotSupported: {
    code: 400,
    message: 'Network {network_id} has a QoS policy, which instance {instance_uuid} cannot use this way',
  },
  SecurityGroupNotFound: { code: 404, message: 'Security group {security_group_id} could not be found' },

  // Volumes
  VolumeNotFound: { code: 404, message: 'Volume {volume_id} could not be found' },
  VolumeBDMNotFound: { code: 404, message: 'No block device mapping of volume {volume_id}' },
  VolumeAttachFailed: { code: 400, message: 'Volume {volume_id} could not be attached: {reason}' },
  VolumeDetachFailed: { code: 400, message: 'Volume {volume_id} could not be detached: {reason}' },
  VolumeEncryptionNotSupported: {
    code: 500,
    message: 'Volume encryption is not supported for {volume_type} volume {volume_id}',
  },
  DiskNotFound: { code: 404, message: 'No disk at {location}' },

  // Received from the conductor
  InstanceNotFound: { code: 404, message: 'Instance {instance_id} could not be found.' },
  InstanceInfoCacheNotFound: { code: 404, message: 'No network information of instance {instance_uuid}' },
  InstanceUpdateConflict: {
    code: 500,
    message: 'Conflict updating instance {instance_uuid}: expected {expected}, actual {actual}',
  },
  UnexpectedTaskStateError: {
    code: 500,
    message: 'Unexpected task state of instance {instance_uuid}: expected {expected}, actual {actual}',
    extends: 'InstanceUpdateConflict',
  },
  UnexpectedDeletingTaskStateError: {
    code: 500,
    message: 'Instance {instance_uuid} is being deleted: expected {expected}, actual {actual}',
    extends: 'UnexpectedTaskStateError',
  },
  InstanceGroupNotFound: { code: 404, message: 'Server group {group_uuid} could not be found' },
  ServiceNotFound: { code: 404, message: 'Service {service_id} could not be found' },
  ServiceTooOld: { code: 400, message: 'This service is at version {thisver}, the oldest of the cell at {minver}' },
  ServiceTopicExists: { code: 500, message: 'Service with host {host} and topic {topic} exists' },
  ServiceBinaryExists: { code: 500, message: 'Service with host {host} and binary {binary} exists' },
  ComputeHostNotFound: { code: 404, message: 'Compute host {host} could not be found' },
  DuplicateRecord: { code: 500, message: 'A second record of {target} was refused' },
  InstanceActionNotFound: {
    code: 500,
    message: 'No action of request {request_id} on instance {instance_uuid}',
  },
  InstanceActionEventNotFound: { code: 500, message: 'Event {event} of action {action_id} could not be found' },
  ObjectActionError: { code: 500, message: 'Object action {action} failed: {reason}' },
  MigrationNotFound: { code: 404, message: 'Migration {migration_id} could not be found' },
  TaskAlreadyRunning: { code: 500, message: 'Task {task_name} is already running on host {host}' },
  TaskNotRunning: { code: 500, message: 'Task {task_name} is not running on host {host}' },

  // Placement
  AllocationDeleteFailed: { code: 500, message: 'Failed to delete allocations of {consumer_uuid}: {error}' },
  ReshapeNeeded: { code: 500, message: 'The provider tree must be reshaped' },
  ReshapeFailed: { code: 500, message: 'Reshaping the provider tree failed: {error}' },
  PlacementPciException: { code: 500, message: 'PCI devices could not be reported to Placement: {error}' },
} as const satisfies Record<string, ExceptionDefinition>;
