/* The lab's links, addresses and routes from C, one rtnetlink message after another: what the kernel itself takes.
 * Like netlab it asks for no IPv6 link-local addresses and no multicast snooping: on a large bridge each port's
 * autoconfiguration floods all others. It loads no rules. limit up-t3 | up-star PODS | down
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAMES "/run/netns"
#define PREFIX "yl-"
#define GATEWAY 0x0af40001u /* 10.244.0.1 */
#define FIRST_POD 0x0af4000au /* 10.244.0.10 */

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* One request: a header, then attributes; nests are closed by the caller's offset. */
struct request {
	size_t length;
	char bytes[1024];
};

static void begin(struct request *r, int type, int flags, const void *body, size_t size)
{
	struct nlmsghdr header = { .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags };

	memset(r, 0, sizeof *r);
	memcpy(r->bytes, &header, sizeof header);
	memcpy(r->bytes + NLMSG_HDRLEN, body, size);
	r->length = NLMSG_HDRLEN + NLMSG_ALIGN(size);
}

static size_t put(struct request *r, int type, const void *data, size_t size)
{
	struct rtattr attribute = { .rta_type = type, .rta_len = RTA_LENGTH(size) };
	size_t at = r->length;

	memcpy(r->bytes + at, &attribute, sizeof attribute);
	if (size)
		memcpy(r->bytes + at + RTA_LENGTH(0), data, size);
	r->length += RTA_SPACE(size);
	return at;
}

static void put_u32(struct request *r, int type, unsigned value) { put(r, type, &value, sizeof value); }

static void put_text(struct request *r, int type, const char *text) { put(r, type, text, strlen(text) + 1); }

static void close_nest(struct request *r, size_t at)
{
	((struct rtattr *)(r->bytes + at))->rta_len = r->length - at;
}

static void talk(int sock, struct request *r, const char *what)
{
	char answer[4096];
	struct nlmsgerr *error = NLMSG_DATA((struct nlmsghdr *)answer);

	((struct nlmsghdr *)r->bytes)->nlmsg_len = r->length;
	if (send(sock, r->bytes, r->length, 0) < 0 || recv(sock, answer, sizeof answer, 0) < 0)
		die(what);
	if (error->error) {
		errno = -error->error;
		die(what);
	}
}

static void set_sysctl(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		die(path);
	close(fd);
}

/* The calling thread is in a new namespace afterwards; its name stands in NAMES. */
static int new_namespace(const char *name)
{
	char path[128];
	int fd;

	if (unshare(CLONE_NEWNET))
		die("unshare");
	snprintf(path, sizeof path, NAMES "/" PREFIX "%s", name);
	if ((fd = open(path, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0)) < 0)
		die(path);
	close(fd);
	if (mount("/proc/self/ns/net", path, "none", MS_BIND, NULL))
		die(path);
	set_sysctl("/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1"); /* IN6_ADDR_GEN_MODE_NONE */
	return open(path, O_RDONLY | O_CLOEXEC);
}

static int route_socket(void)
{
	int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	if (sock < 0)
		die("socket");
	return sock;
}

static void set_up(int sock, int ifindex)
{
	struct ifinfomsg link = { .ifi_index = ifindex, .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
	struct request r;

	begin(&r, RTM_NEWLINK, 0, &link, sizeof link);
	talk(sock, &r, "link set up");
}

static void add_address(int sock, int ifindex, unsigned address)
{
	struct ifaddrmsg message = { .ifa_family = AF_INET, .ifa_prefixlen = 16, .ifa_index = ifindex };
	struct request r;

	begin(&r, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &message, sizeof message);
	put_u32(&r, IFA_LOCAL, htonl(address));
	put_u32(&r, IFA_ADDRESS, htonl(address));
	talk(sock, &r, "address add");
}

static void add_default_route(int sock)
{
	struct rtmsg route = { .rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN, .rtm_protocol = RTPROT_BOOT,
			       .rtm_scope = RT_SCOPE_UNIVERSE, .rtm_type = RTN_UNICAST };
	struct request r;

	begin(&r, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &route, sizeof route);
	put_u32(&r, RTA_GATEWAY, htonl(GATEWAY));
	talk(sock, &r, "route add default");
}

static void add_bridge(int sock, int ifindex)
{
	struct ifinfomsg link = { .ifi_index = ifindex, .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
	struct request r;
	size_t info, data;
	char off = 0;

	begin(&r, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link, sizeof link);
	put_text(&r, IFLA_IFNAME, "br0");
	info = put(&r, IFLA_LINKINFO, NULL, 0);
	put_text(&r, IFLA_INFO_KIND, "bridge");
	data = put(&r, IFLA_INFO_DATA, NULL, 0);
	put(&r, IFLA_BR_MCAST_SNOOPING, &off, sizeof off);
	close_nest(&r, data);
	close_nest(&r, info);
	talk(sock, &r, "bridge add");
}

/* A veth end that is up and a port of the bridge; its peer is made in the pod, down (the kernel allows no other way). */
static void add_port(int sock, int bridge, int number, int pod)
{
	struct ifinfomsg link = { .ifi_flags = IFF_UP, .ifi_change = IFF_UP }, peer = { .ifi_index = 2 };
	struct request r;
	size_t info, data, peer_nest;
	char name[IFNAMSIZ];

	snprintf(name, sizeof name, "veth%d", number);
	begin(&r, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link, sizeof link);
	put_text(&r, IFLA_IFNAME, name);
	put_u32(&r, IFLA_MASTER, bridge);
	put_u32(&r, IFLA_NUM_TX_QUEUES, 1);
	put_u32(&r, IFLA_NUM_RX_QUEUES, 1);
	info = put(&r, IFLA_LINKINFO, NULL, 0);
	put_text(&r, IFLA_INFO_KIND, "veth");
	data = put(&r, IFLA_INFO_DATA, NULL, 0);
	peer_nest = put(&r, VETH_INFO_PEER, &peer, sizeof peer);
	put_text(&r, IFLA_IFNAME, "eth0");
	put_u32(&r, IFLA_NET_NS_FD, pod);
	put_u32(&r, IFLA_NUM_TX_QUEUES, 1);
	put_u32(&r, IFLA_NUM_RX_QUEUES, 1);
	close_nest(&r, peer_nest);
	close_nest(&r, data);
	close_nest(&r, info);
	talk(sock, &r, "veth add");
}

static void up_star(int pods)
{
	char name[32];
	int node, pod, pod_fd;

	mkdir(NAMES, 0755);
	close(new_namespace("node"));
	node = route_socket();
	set_sysctl("/proc/sys/net/ipv4/ip_forward", "1");
	set_up(node, 1);
	add_bridge(node, 2);
	add_address(node, 2, GATEWAY);
	for (int i = 0; i < pods; i++) {
		snprintf(name, sizeof name, "pod%d", i);
		pod_fd = new_namespace(name);
		pod = route_socket();
		add_port(node, 2, i, pod_fd);
		set_up(pod, 1);
		set_up(pod, 2);
		add_address(pod, 2, FIRST_POD + i);
		add_default_route(pod);
		close(pod);
		close(pod_fd);
	}
}

static void down(void)
{
	DIR *names = opendir(NAMES);
	struct dirent *entry;
	char path[512];

	if (!names)
		die(NAMES);
	while ((entry = readdir(names))) {
		if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)))
			continue;
		snprintf(path, sizeof path, NAMES "/%s", entry->d_name);
		if (umount2(path, MNT_DETACH) || unlink(path))
			die(path);
	}
	closedir(names);
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "up-t3"))
		up_star(2);
	else if (argc == 3 && !strcmp(argv[1], "up-star"))
		up_star(atoi(argv[2]));
	else if (argc == 2 && !strcmp(argv[1], "down"))
		down();
	else {
		fprintf(stderr, "usage: %s up-t3 | up-star PODS | down\n", argv[0]);
		return 2;
	}
	return 0;
}
