from rest_framework import serializers, status
from rest_framework.response import Response
from rest_framework.views import APIView

from .tasks import login_log_task


class Login(APIView):
    def post(self, request):
        username = serializers.CharField().run_validation(request.data.get("username"))
        return Response({"task_id": login_log_task.delay(username).id}, status=status.HTTP_202_ACCEPTED)
